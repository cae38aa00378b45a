"""Lucent's names on this library's loop: a Lucent user changes one import.

`from lucent.optvis import render, param, transform, objectives` becomes::

    from circuits.visualization.lucent import render, param, transform, objectives

What stays: `render.render_vis(model, "mixed4a:476", param_f, ...)`, objectives and their algebra, parametrizations
and transforms, and functions of one's own for each. Objects of torch-lucent itself work too. What is better: no hook
is left behind, errors are errors, weights stay as they are, only the layers needed run, a batch draws its
transformations picture by picture, and pictures are returned, not popped up in a window.
"""

from circuits.visualization.lucent import objectives, param, render, transform

__all__ = ["objectives", "param", "render", "transform"]
