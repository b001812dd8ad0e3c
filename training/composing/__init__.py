"""What `lincir` is made of: pseudo words in texts, batches of captions, questions to validate with."""
