"""The papers' figures: a probe a file, `sublayers` attaches them, `plotting` draws."""
