"""The commands about models: `vidgrain models`, `evaluate`, `train`, `train-tiny`, `convert`. main.py adds them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.cli.options import Device, Json, Model, made_folder, settings_of

PANEL = "Models"


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    for command in (models, evaluate, train):
        app.command(rich_help_panel=PANEL)(command)
    app.command("train-tiny", rich_help_panel=PANEL)(train_tiny)
    app.command(rich_help_panel=PANEL)(convert)


def models(as_json: Json = False) -> None:
    """List installed models: the one in the settings, the bundled one, those in VIDGRAIN_MODELS and in the cache.

    A damaged model is listed with the reason. Weights are not read.
    """
    from model.installed import described, installed_models
    from service.cli.local import local_model
    from service.cli.printing import models_table, print_json, stdout
    from service.responses.models import ModelList
    from service.settings import load_settings

    settings = load_settings()
    served = described(settings.model)
    found = [served, *(model for model in installed_models(settings.models) if not model.is_called(settings.model))]
    if as_json:
        print_json(ModelList(models=[local_model(model, is_served=model is served) for model in found]))
    else:
        stdout.print(models_table(found, served))


def convert(
    source: Annotated[str, typer.Argument(help="A model's name, a file of any layout, or a folder.")],
    target: Annotated[Path, typer.Argument(help="A folder, or a file ending in .safetensors (official: also .pt).")],
    to: Annotated[
        str | None,
        typer.Option("--to", help="vidgrain (a folder), official, openai, open_clip, hugging_face (folder or file)."),
    ] = None,
    arch: Annotated[
        str | None, typer.Option("--arch", help="The open_clip architecture, if the file doesn't name it.")
    ] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="fp32 or fp16.")] = "fp32",
    towers_only: Annotated[
        bool, typer.Option("--towers-only", help="Leave out the temporal encoder and the head.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a model in another layout: ours, the papers' official one, OpenAI's, open_clip's or Hugging Face's."""
    from service.cli.convert import DTYPES, TARGETS
    from service.cli.convert import convert as run
    from service.cli.printing import print_json, stderr

    if to is not None and to not in TARGETS:
        raise typer.BadParameter(f"{to!r} is unknown; use {', '.join(TARGETS)}", param_hint="--to")
    if dtype not in DTYPES:
        raise typer.BadParameter(f"{dtype!r} is unknown; use {', '.join(DTYPES)}", param_hint="--dtype")
    done = run(
        source,
        target,
        to=to,
        architecture=arch,
        dtype=dtype,
        is_towers_only=towers_only,
    )
    for note in done.notes:
        stderr.print(f"note: {note}", markup=False, soft_wrap=True)
    if as_json:
        print_json(done)
    else:
        typer.echo(f"{done.target}: {done.layout}, {done.num_tensors} tensors, {done.size_bytes / 2**20:.1f} MiB")


def evaluate(
    model: Model = None,
    dataset: Annotated[
        str, typer.Option("--dataset", help="shapes (drawn, needs no folder), or a name of docs/datasets.md.")
    ] = "shapes",
    videos: Annotated[Path | None, typer.Option("--videos", help="Folder with the dataset's videos.")] = None,
    annotations: Annotated[
        Path | None, typer.Option("--annotations", help="Folder with the files that docs/datasets.md names.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="train, val or test.")] = "test",
    masks: Annotated[
        str | None,
        typer.Option("--masks", help="trained, masked, or reference: exactly the papers' arithmetic.  [trained]"),
    ] = None,
    scorer: Annotated[
        str | None,
        typer.Option("--scorer", help="aosm, multi_grained, maxsim, max_frame or mean; default: its own."),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Folder to keep features in; default: in the data folder.")
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Neither read nor keep features.")] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Leave out videos that are missing or broken, and list them.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Also write the JSON to this file.")] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Measure a model's retrieval, both directions: recall at 1, 5, 10 and 50, median and mean rank, by slice."""
    from typing import cast, get_args

    from model.network import FORMER_MASKS
    from model.scorers import SCORERS
    from service.cli.evaluate import EvaluateRequest, Masks, run_evaluation
    from service.cli.printing import evaluation_notes, followed, json_text, recalls_table, stderr, stdout
    from service.settings import InvalidSettings

    masks = FORMER_MASKS.get(masks, masks) if masks is not None else None
    for value, known, option in ((masks, get_args(Masks), "--masks"), (scorer, tuple(SCORERS), "--scorer")):
        if value is not None and value not in known:
            raise typer.BadParameter(f"{value!r} is unknown; use {', '.join(known)}", param_hint=option)
    if out is not None and (not out.parent.is_dir() or out.is_dir()):
        why = f"{str(out)!r} is a folder" if out.is_dir() else f"there is no folder {str(out.parent)!r}"
        raise typer.BadParameter(why, param_hint="--out")
    request = EvaluateRequest(
        dataset,
        split,
        videos,
        annotations,
        cast(Masks | None, masks),
        scorer,
        cache,
        not no_cache,
        allow_missing,
    )
    with followed() as tell:
        result = run_evaluation(settings_of(model=model, device=device), request, tell)
    for note in evaluation_notes(result):
        stderr.print(note, markup=False, soft_wrap=True)
    if as_json:
        typer.echo(json_text(result), nl=False)
    else:
        stdout.print(recalls_table(result))
    if out is not None:
        try:
            out.write_text(json_text(result), encoding="utf-8")
        except OSError as error:
            raise InvalidSettings(f"{out} can't be written: {error.strerror}.", "The figures stand above.") from error


def train(
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file; docs/training.md has every key.", dir_okay=False)
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", help="A preset to start from; the file overrides it.")
    ] = None,
    videos: Annotated[Path | None, typer.Option("--videos", help="Folder with the dataset's videos.")] = None,
    annotations: Annotated[
        Path | None, typer.Option("--annotations", help="Folder with the files that docs/datasets.md names.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the run; an unfinished one is resumed.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Total steps, instead of epochs.")] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over: remove what an earlier run left in the folder.")
    ] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Train even if videos are missing; they are listed.")
    ] = False,
    list_presets: Annotated[bool, typer.Option("--list-presets", help="Print the presets' names.")] = False,
    show_preset: Annotated[str | None, typer.Option("--show-preset", help="Print a preset's file.")] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Train a model, or resume a run that was interrupted. Exit status 130 if it was stopped by a signal.

    Several GPUs: torchrun --nproc-per-node 4 --no-python vidgrain train --config FILE
    """
    from model.training.config import preset_file, preset_names, read_config

    if list_presets:
        typer.echo("\n".join(preset_names()))
        return
    if show_preset is not None:
        typer.echo(preset_file(show_preset).read_text(encoding="utf-8"), nl=False)
        return
    if config is None and preset is None:
        raise typer.BadParameter("name a --config FILE or a --preset, e.g. vidgrain train --preset shapes --out run")
    from service.cli.printing import print_json, stderr
    from service.cli.train import train as run

    changes: dict[str, dict[str, object]] = {
        "data": {"videos": videos, "annotations": annotations},
        "run": {"out": out, "device": device},
    }
    values: dict[str, dict[str, object]] = {
        part: {name: str(value) for name, value in given.items() if value is not None}
        for part, given in changes.items()
    }
    values["run"] |= {"steps": steps} if steps is not None else {}
    values["data"] |= {"allow_missing": True} if allow_missing else {}
    chosen = read_config(config, preset, values)
    settings = settings_of(device=device)
    outcome = run(settings, chosen, lambda line: stderr.print(line, markup=False, soft_wrap=True), is_fresh=fresh)
    best, folder = outcome.progress.best, chosen.run.out
    if outcome.is_first and as_json:
        print_json({"status": outcome.status, "step": outcome.progress.step, "out": folder, "best": best.as_dict()})
    elif outcome.is_first and outcome.status == "finished":
        typer.echo(f"{folder}/best: step {best.step}, text-to-video R@1 {best.figure:.3f} in validation")
        typer.echo(f"measure it with  vidgrain evaluate --model {folder}/best")
    if outcome.status == "stopped":
        raise typer.Exit(130)


def train_tiny(
    out: Annotated[Path, typer.Option("--out", help="Folder for config.json, model.safetensors and the rest.")] = Path(
        "tiny-model"
    ),
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Most training steps.")] = None,
    minutes: Annotated[float | None, typer.Option("--minutes", min=0.1, help="Most minutes.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="The same seed and device give the same weights.")] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Train the bundled tiny model on drawn clips; the defaults are its recipe."""
    from dataclasses import asdict

    from model.tiny.recipe import StepReport, TinyTraining, train
    from service.cli.printing import print_json, stderr

    def show(step: StepReport) -> None:
        stderr.print(
            f"step {step.step}/{step.total_steps}  loss {step.loss:.3f}  accuracy in batch {step.accuracy:.3f}  "
            f"{step.elapsed_s / 60:.1f} min"
        )

    made_folder(out)
    given = {"steps": steps, "max_minutes": minutes, "seed": seed, "device": settings_of(device=device).device}
    known = {name: value for name, value in given.items() if value is not None}
    report = train(out, TinyTraining(**known), show)  # type: ignore[arg-type]
    if as_json:
        print_json({"folder": out, **asdict(report)})
    else:
        typer.echo(f"{out}: measure it with  vidgrain evaluate --model {out}")
