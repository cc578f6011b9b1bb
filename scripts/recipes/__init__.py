"""The published experiments, from download to BLEU."""
