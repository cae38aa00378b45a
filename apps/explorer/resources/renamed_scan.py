"""The scan of an SAE's latents under the name that they have on the server."""

from __future__ import annotations

from dataclasses import replace

from circuits.dataset.scan_results import LayerScan, Samples, Scan


class RenamedScan(Scan):
    """A scan with one layer renamed, since `circuits sae features` names latents after their folder.

    Args:
        scan: as written; old, new: names of the layer, `layer~name`.
    """

    def __init__(self, scan: Scan, old: str, new: str) -> None:
        self.__dict__.update(scan.__dict__)
        self._scan, self.old, self._new = scan, old, new
        self.layers = {new if name == old else name: count for name, count in scan.layers.items()}

    def layer(self, name: str) -> LayerScan:
        """Statistics and examples of a layer."""
        return replace(self._scan.layer(self.old), name=name) if name == self._new else self._scan.layer(name)

    def samples(self, layer: str) -> Samples:
        """Activations at randomly sampled positions."""
        return self._scan.samples(self.old if layer == self._new else layer)
