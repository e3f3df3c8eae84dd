"""The evaluation for readers: what was found in sentences, how it was made, and the page (charts.py, page.html)."""
