"""Whether a model will learn, told before it is trained."""
