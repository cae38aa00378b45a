"""Attribution graphs: a prediction traced through units or latents, with the network frozen at an image."""
