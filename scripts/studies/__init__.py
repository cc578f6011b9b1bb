"""Many trainings that answer one question: which method trains where."""
