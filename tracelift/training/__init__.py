"""What every training stage shares, and the sft stage.

Reading order: learner (one guarded update, checkpoints), fit (the supervised loop), optimizer, lora, packing and
packed_attention (rows without padding), recompute, memory_plan (what will fit), sft.
"""
