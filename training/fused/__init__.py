"""What `syncmask` and `simla` are made of: towers of their own, cross-attention, teacher, queues, masks."""
