"""Why a language model predicts a token: attribution to latents at tokens, and a text as a network for graphs."""
