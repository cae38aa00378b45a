"""Lucent's names on this library's loop: a Lucent user changes one import.

`from lucent.optvis import render, param, transform, objectives` becomes::

    from circuits.visualization.lucent import render, param, transform, objectives

The same: `render.render_vis(model, "mixed4a:476", param_f, ...)`, objectives and their algebra, parametrizations
and transforms, and functions of your own for each. Objects of torch-lucent itself work too. Different: all hooks are
removed, errors are raised, weights stay as they are, only the layers needed run, the images of a batch are transformed
independently, and images are returned, not displayed in a window.
"""

from circuits.visualization.lucent import objectives, param, render, transform

__all__ = ["objectives", "param", "render", "transform"]
