"""The layout of circuit-tracer: one `layer_N.safetensors` for the transcoder of each layer, and a `config.yaml`.

A file holds W_enc `(m, d)`, W_dec `(m, d_out)`, b_enc, b_dec, W_skip `(d_out, d)` where there is a skip, and the
threshold of a JumpReLU under the name of its module. Nothing is subtracted from what is read. `config.yaml` says which
hook points they read and write, and lists the files of a model's layers, which must be all there from 0 on: put those
of the others beside it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from sae.architectures.base import SAE, SAEConfig
from sae.architectures.jumprelu import JumpReLU
from sae.architectures.relu import ReLU
from sae.errors import FormatError
from sae.formats.detect import SavedFiles, read_safetensors
from sae.formats.parameter_names import Roles, assembled, parameters_of, tensors_of, values_of
from sae.formats.registry import Layout, register_layout
from zoo.common.files import write_atomically, write_text_atomically

CONFIG = "config.yaml"
THRESHOLD = "activation_function.threshold"
ROLES: Roles = {
    "encoder": ("W_enc", "md"), "encoder_bias": ("b_enc", "m"), "decoder": ("W_dec", "mo"),
    "decoder_bias": ("b_dec", "o"), "skip": ("W_skip", "od"), "threshold": (THRESHOLD, "m"),
}  # fmt: skip
_FILE = re.compile(r"layer_(\d+)\.safetensors")
_SITE = re.compile(r"layers\.(\d+)\.(\w+)\.\.layers\.\1\.(\w+)")
_HOOKS = {"mlp_in": "mlp.hook_in", "mlp": "mlp.hook_out"}
"""Our sites of a block -> circuit-tracer's hook points."""


@register_layout
class CircuitTracer(Layout):
    """See the module. TopK transcoders and gated ones have no place in it."""

    name = "circuit_tracer"
    description = "layer_N.safetensors with W_enc (m, d), W_dec, b_enc and b_dec"
    weights = CONFIG
    transcoders = True

    def detects(self, files: SavedFiles) -> bool:
        return any(_FILE.fullmatch(name) for name in files.names)

    def read(self, files: SavedFiles) -> SAE:
        names = sorted(name for name in files.names if _FILE.fullmatch(name))
        if not names:
            raise FormatError("there is no layer_N.safetensors")
        if len(names) > 1:
            raise FormatError(f"it holds the transcoders of {len(names)} layers: name one file, such as {names[0]}")
        tensors = read_safetensors(files.folder / names[0])
        optional = ("skip", "threshold")
        values = values_of(tensors, ROLES, "a transcoder of circuit-tracer", optional)
        kind: Any = "skip-transcoder" if "skip" in values else "transcoder"
        config: SAEConfig = ReLU(latents=len(values["encoder"]), kind=kind)
        if "threshold" in values:
            config = JumpReLU(latents=len(values["encoder"]), kind=kind)
        sae = assembled(config, values)
        sae.metadata = {"source": {"format": self.name, "layer": int(_FILE.fullmatch(names[0])[1])}}  # type: ignore[index]
        return sae

    def write(self, folder: Path, sae: SAE, about: dict[str, Any]) -> None:
        if not sae.transcodes or sae.saelens not in ("standard", "jumprelu"):
            title = f"a {sae.config.architecture} {sae.config.kind}"
            raise FormatError(f"circuit-tracer has transcoders of ReLU and JumpReLU, and this is {title}")
        values = parameters_of(sae)
        tensors = tensors_of(values, {role: name for role, name in ROLES.items() if role in values})
        site = _SITE.fullmatch(str(sae.metadata.get("layer")))
        source, target = (sae.metadata.get(key, "") for key in ("hook_name", "hook_name_out"))
        file = f"layer_{site[1] if site else 0}.safetensors"
        config = {
            "model_name": sae.metadata.get("model", ""), "model_kind": "transcoder_set",
            "feature_input_hook": _HOOKS.get(site[2], source) if site else source,
            "feature_output_hook": _HOOKS.get(site[3], target) if site else target,
            "scan": sae.metadata.get("model", ""), "transcoders": [file],
        }  # fmt: skip
        write_atomically(folder / file, lambda temporary: save_file(tensors, temporary))
        write_text_atomically(folder / CONFIG, json.dumps(config, indent=1))  # JSON is YAML
        for other in folder.glob("layer_*.safetensors"):
            if other.name != file:  # of a transcoder that was here before
                other.unlink()
