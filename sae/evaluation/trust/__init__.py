"""Which metric of a dictionary can be trusted: metrics of latents, and how well each tells SAEs from their controls."""
