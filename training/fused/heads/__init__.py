"""Fine-tuning of the fused methods: a classifier on the fused [CLS] of one picture or two and a text."""
