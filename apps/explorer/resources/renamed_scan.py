"""The scan of an SAE's latents under the name that the server was given for them."""

from __future__ import annotations

from dataclasses import replace

from circuits.dataset.scan_results import LayerScan, Samples, Scan


class Renamed(Scan):
    """A scan in which one layer is called otherwise: `circuits sae features` calls latents by their folder.

    Args:
        scan: as it was written; old, new: names of the layer, `layer~name`.
    """

    def __init__(self, scan: Scan, old: str, new: str) -> None:
        self.__dict__.update(scan.__dict__)
        self._scan, self._old, self._new = scan, old, new
        self.layers = {new if name == old else name: count for name, count in scan.layers.items()}

    def layer(self, name: str) -> LayerScan:
        """What was found of a layer."""
        return replace(self._scan.layer(self._old), name=name) if name == self._new else self._scan.layer(name)

    def samples(self, layer: str) -> Samples:
        """Responses at places drawn by lot."""
        return self._scan.samples(self._old if layer == self._new else layer)
