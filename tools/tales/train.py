"""Trains the packaged language model: `python -m tools.tales.train --out FOLDER --seed 0`.

A small Llama: stories are drawn from the grammar until the training ends, hardly any of them twice, and the model
learns to predict the next token. Nothing is taught but that. Weights are rounded to float16, as they are stored, before
the model is judged, so that `facts.json` holds for the file; it also holds the digests of the other
files, so that files of two trainings are never taken for one.

Nothing is written before the end. Then the folder is filled under another name and takes the old one's place, so that
Ctrl-C leaves either the old model or the new one. Takes about ten minutes on two CPU cores, the drawing
of the stories included; on the CPU the same seed, versions and `--threads` give the same bits.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import zoo.tales
from tools.tales import evaluate
from zoo.common.files import new_file_mode
from zoo.common.stored import sha256
from zoo.errors import FileError
from zoo.networks.initialization import freeze, seeded
from zoo.tales.stories import training_story
from zoo.tales.tokenizer import BEGINNING, CONTEXT, END, tokenizer, vocabulary

log = logging.getLogger(__name__)

FACTS, WEIGHTS = "facts.json", "model.safetensors"
_SORTED = 32  # batches that are sorted by length together, so that little is padded
_NONE = -100  # the target of a padded place


def config() -> Any:
    """The model's Hugging Face configuration."""
    from transformers import LlamaConfig

    ids = {token: i for i, token in enumerate(vocabulary())}
    return LlamaConfig(
        vocab_size=len(ids),
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=ids[BEGINNING],
        eos_token_id=ids[END],
        architectures=["LlamaForCausalLM"],
    )


def build(seed: int) -> nn.Module:
    """The model with random weights."""
    from transformers import LlamaForCausalLM

    return seeded(lambda: LlamaForCausalLM(config()), seed)


def _ids(seed: int, index: int) -> npt.NDArray[np.int64]:
    story = training_story(seed, index)
    return np.array([_ID[BEGINNING], *(_ID[t] for t in story.tokens), _ID[END]], dtype=np.int64)


_ID = {token: i for i, token in enumerate(vocabulary())}


def make_pool(n: int, seed: int, workers: int = 1) -> list[Tensor]:
    """Token ids of `n` training stories, beginning and end marked."""
    make = partial(_ids, seed)
    if workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            rows = list(tqdm(pool.map(make, range(n), chunksize=1000), total=n, desc="stories", mininterval=5))
    else:
        rows = [make(i) for i in range(n)]
    return [torch.from_numpy(row) for row in rows]


def batches(pool: list[Tensor], batch_size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets `(batch, tokens)` without end, in a new order every epoch, stories of like length together."""
    while True:
        order = torch.randperm(len(pool), generator=generator).tolist()
        for start in range(0, len(order), batch_size * _SORTED):
            some = sorted(order[start : start + batch_size * _SORTED], key=lambda i: len(pool[i]))
            rows = [some[i : i + batch_size] for i in range(0, len(some), batch_size)]
            for k in torch.randperm(len(rows), generator=generator).tolist():
                ids = nn.utils.rnn.pad_sequence([pool[i] for i in rows[k]], batch_first=True, padding_value=_NONE)
                # the loss ignores what follows a story's end
                yield ids[:, :-1].clamp_min(0), ids[:, 1:]


def train(pool: list[Tensor], *, seed: int = 0, steps: int = 4000, batch_size: int = 32, rate: float = 4e-3,
          device: str = "cpu", progress: bool = True) -> nn.Module:  # fmt: skip
    """Train a model on `pool`; it is in evaluation mode, on the CPU, its weights rounded to float16.

    Args:
        pool: from `make_pool`.
        seed: of the initial weights and the order of the stories.
        steps: of AdamW; the learning rate rises to `rate` and falls to zero along a cosine.
        batch_size: stories a step.
        rate: the highest learning rate.
        device: where to train.
        progress: show a bar.
    """
    module = build(seed).to(device).train()
    matrices = [p for p in module.parameters() if p.ndim > 1]
    others = [p for p in module.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))
    warm = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min(1.0, (s + 1) / warm) * 0.5 * (1 + math.cos(math.pi * min(1.0, s / steps)))
    )
    stream = batches(pool, batch_size, torch.Generator().manual_seed(seed))
    for step in tqdm(range(steps), desc="train", mininterval=5, disable=not progress):
        inputs, targets = (t.to(device) for t in next(stream))
        logits = module(inputs, use_cache=False).logits
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=_NONE)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 200 == 0:
            log.info("step %d: %.4f nats per token", step, loss.item())
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(p.half().float())
    return freeze(module.cpu())


def write(module: nn.Module, folder: Path, facts: Mapping[str, Any]) -> None:
    """Write model, tokenizer and facts into `folder`, which is replaced as a whole.

    Raises:
        FileError: the disk does not take it; what was there before still is.
    """
    folder = folder.absolute()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".tmp"))
        try:
            _fill(staging, module, facts)
            _replace_folder(staging, folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise FileError(f"cannot write {folder}: {error.strerror or error}") from error


def _fill(folder: Path, module: nn.Module, facts: Mapping[str, Any]) -> None:
    untyped: Any = module
    config = json.loads(untyped.config.to_json_string()) | {"torch_dtype": "float16"}
    config.pop("dtype", None)
    state = {
        name: value.detach().half().contiguous()
        for name, value in untyped.state_dict().items()
        if name != "lm_head.weight"  # the embedding again
    }
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tokenizer().backend_tokenizer.save(str(folder / "tokenizer.json"))
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # the name that every version of the library knows
        "unk_token": "<unk>",
        "bos_token": BEGINNING,
        "eos_token": END,
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    digests = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    text = json.dumps({"schema": 1, **facts, "sha256": digests}, indent=1, ensure_ascii=False)
    (folder / FACTS).write_text(text + "\n", encoding="utf-8")
    mode = new_file_mode()
    for path in folder.iterdir():
        path.chmod(mode)
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    folder.chmod(mode | 0o111)


def _replace_folder(staging: Path, folder: Path) -> None:
    if folder.exists() and any(path.suffix not in (".json", ".safetensors") for path in folder.iterdir()):
        raise FileError(f"{folder} has other things in it than a model; give a new folder")
    if not folder.exists():
        staging.rename(folder)
        return
    old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".old"))
    folder.rename(old / folder.name)
    try:
        staging.rename(folder)
    except BaseException:
        (old / folder.name).rename(folder)
        raise
    finally:
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)


def main(arguments: list[str] | None = None) -> None:
    """Draw the stories, train, judge and write the model."""
    parser = argparse.ArgumentParser(prog="python -m tools.tales.train", description="Train the tales language model.")
    parser.add_argument(
        "--out", type=Path, default=Path(zoo.tales.__file__).parent / "model", help="folder for the model"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch-size", type=int, default=32, help="stories a step")
    parser.add_argument("--stories", type=int, default=128_000, help="stories drawn to train on")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that draw stories")
    parser.add_argument("--threads", type=int, default=1, help="of torch; the rounding, so the bits, depend on it")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(options.threads)
    pool = make_pool(options.stories, options.seed, options.workers)
    module = train(pool, seed=options.seed, steps=options.steps, batch_size=options.batch_size, device=options.device)
    judged = evaluate.benchmark(module)
    log.info("%s", json.dumps(judged, indent=1, ensure_ascii=False))
    settings = {
        "seed": options.seed,
        "steps": options.steps,
        "batch_size": options.batch_size,
        "stories": options.stories,
        "device": options.device,
        "threads": options.threads,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }
    write(module, options.out, {"made": settings, **judged})
    log.info("wrote %s", options.out)


if __name__ == "__main__":
    main()
