"""Small seed problems in GSM8K's layout, written for these tests."""

SEEDS = [
    (
        "Nora picked 48 apples on Monday and 36 apples on Tuesday. She packs them into bags of 7 apples. "
        "She sells each "
        "bag for $5. How much money does she get?",
        "Nora picked 48 + 36 = <<48+36=84>>84 apples in all.\nShe fills 84 / 7 = <<84/7=12>>12 bags.\n"
        "She gets 12 * $5 = $<<12*5=60>>60.\n#### 60",
    ),
    (
        "A library has 120 novels and half as many comics. It buys 25 more comics and lends out 40 novels. How many "
        "books does the library hold now?",
        "There are 120 / 2 = <<120/2=60>>60 comics.\nAfter buying, there are 60 + 25 = <<60+25=85>>85 comics.\n"
        "After lending, there are 120 - 40 = <<120-40=80>>80 novels.\n"
        "The library holds 85 + 80 = <<85+80=165>>165 books.\n#### 165",
    ),
    (
        "Omar runs 6 kilometers a day for 5 days. Priya runs 4 kilometers a day for 9 days. How many "
        "kilometers do Omar "
        "and Priya run together?",
        "Omar runs 6 x 5 = <<6*5=30>>30 kilometers.\nPriya runs 4 x 9 = <<4*9=36>>36 kilometers.\n"
        "So together they run 30 + 36 = <<30+36=66>>66 kilometers.\n#### 66",
    ),
    (
        "A bakery sells 15 cakes at $24 each and 32 rolls at $2 each. It pays $140 for flour and $60 for "
        "milk. What is "
        "left?",
        "The cakes bring 15*24 = $<<15*24=360>>360.\nThe rolls bring 32*2 = $<<32*2=64>>64.\n"
        "That is 360+64 = $<<360+64=424>>424.\nThe bakery pays 140+60 = $<<140+60=200>>200.\n"
        "So 424-200 = $<<424-200=224>>224 is left.\n#### 224",
    ),
    (
        "Lena has 18 red beads, 27 blue beads and 35 green beads. She uses 8 beads for each bracelet. How "
        "many bracelets "
        "can she make?",
        "Lena has 18 + 27 + 35 = <<18+27+35=80>>80 beads.\nShe can make 10 bracelets because 80 / 8 = "
        "<<80/8=10>>10.\n"
        "#### 10",
    ),
    (
        "A tank holds 1,250 liters. A pump fills 45 liters each minute for 20 minutes. How many liters are "
        "still missing?",
        "The pump fills 45 liters/minute * 20 minutes = <<45*20=900>>900 liters.\n"
        "There are 1,250 - 900 = <<1250-900=350>>350 liters missing.\n#### 350",
    ),
    (
        "Marta buys 3 shirts for $12.50 each and a hat for $9.25. She pays with $50. How much change does she get?",
        "The shirts cost 3 * $12.50 = $<<3*12.50=37.50>>37.50.\n"
        "Together with the hat that is $37.50 + $9.25 = $<<37.50+9.25=46.75>>46.75.\n"
        "She gets $50 - $46.75 = $<<50-46.75=3.25>>3.25 back.\n#### 3.25",
    ),
    (
        "In a school of 640 pupils, 45% take the bus and 96 pupils walk. The others cycle. How many pupils cycle?",
        "640 * 45/100 = <<640*45/100=288>>288 pupils take the bus.\n"
        "Bus and foot make 288 + 96 = <<288+96=384>>384 pupils.\n640 - 384 = <<640-384=256>>256 pupils "
        "cycle.\n#### 256",
    ),
    (
        "Ivan collects 14 stamps a week for 6 weeks. Then Ivan gives 19 stamps to Olga and 11 stamps to "
        "Pavel. How many "
        "stamps does Ivan keep?",
        "Ivan collects 14 * 6 = <<14*6=84>>84 stamps.\nHe gives away 19 + 11 = <<19+11=30>>30 stamps.\n"
        "Ivan keeps 84 - 30 = <<84-30=54>>54 stamps.\n#### 54",
    ),
    (
        "A farmer plants 9 rows of 32 carrots. Rabbits eat 58 carrots. He sells the rest in bunches of 10 "
        "carrots for $3 "
        "each. How much does he earn?",
        "He plants 9 * 32 = <<9*32=288>>288 carrots.\nThere are 288 - 58 = <<288-58=230>>230 carrots left.\n"
        "That makes 230 / 10 = <<230/10=23>>23 bunches.\nHe earns 23 * $3 = $<<23*3=69>>69.\n#### 69",
    ),
    (
        "A train carries 215 people. At the first stop 67 people get off and 38 people get on. At the second stop 54 "
        "people get off. How many people are on the train now?",
        "After the first stop, 215 - 67 + 38 = <<215-67+38=186>>186 people are on the train.\n"
        "After the second stop, 186 - 54 = <<186-54=132>>132 people are on the train.\n#### 132",
    ),
    (
        "Sofia reads 24 pages on Monday and twice as many on Tuesday. The book has 150 pages. How many pages are left?",
        "Sofia reads 24 * 2 = <<24*2=48>>48 pages on Tuesday.\nShe reads 24 + 48 = <<24+48=72>>72 pages in "
        "two days.\n"
        "There are 150 - 72 = <<150-72=78>>78 pages left.\n#### 78",
    ),
    (
        "A team scores 12 points, 15 points and 21 points in three games. It then loses 6 points for a foul. How many "
        "points does the team have?",
        "The games bring 12 + 15 + 21 = <<12+15+21=48>>48 points.\n"
        "The team has 48 - 6 = <<48-6=42>>42 points.\n#### 42",
    ),
    (
        "Kim has $15 and buys a helmet for $42. Then Kim earns $60 and spends $18 on a book. How much money does Kim have?",
        "After the helmet Kim has $15 - $42 = -$<<15-42=-27>>27.\nAfter work Kim has -27 + 60 = $<<-27+60=33>>33.\n"
        "After the book Kim has 33 - 18 = $<<33-18=15>>15.\n#### 15",
    ),
    (
        "It is 14 degrees at noon. By evening it is 23 degrees colder, and at night 16 degrees colder than that. How warm "
        "is it at night?",
        "In the evening it is 14 - 23 = <<14-23=-9>>-9 degrees.\nAt night it is -9 - 16 = <<-9-16=-25>>-25 degrees.\n"
        "#### -25",
    ),
]
