"""Sentences of a card: each from one file of the model folder, or the plain word that it is not known."""

from collections.abc import Callable
from typing import Any, cast

from modeling_slam_asr.transcripts_slam_asr import LANGUAGE_NAMES
from trainers.data.spec import NON_SPEECH
from trainers.provenance import TrainingRecord
from trainers.results import Hardware

from .facts import ModelFacts, recipe_data
from .licences import notices
from .limits import Edge
from .markdown import code, plain
from .published import public_name

# Thermal design power in watts, for the energy estimate. The first name that is part of the device's counts.
GPU_WATTS = {
    "H200": 700, "H100 PCIe": 350, "H100": 700, "A100": 400, "L40S": 350, "L40": 300, "L4": 72, "A10": 150, "V100": 300,
    "T4": 70, "4090": 450, "3090": 350, "A6000": 300, "MI300": 750,
}  # fmt: skip
WATTS_PER_CORE = 10
UNKNOWN_GPU_WATTS = 300


def summary_of(facts: ModelFacts) -> str:
    """What the model is, and what of it was trained."""
    languages = [plain(LANGUAGE_NAMES.get(language, language)) for language in facts.languages]
    spoken = f"{join(languages)} speech" if languages else "speech"
    base = facts.config["audio_config"]["encoder_layers"]
    kept = len(facts.config.get("kept_encoder_layers") or range(base))
    encoder = f"{kept} of {base} encoder blocks" if kept < base else f"all {base} encoder blocks"
    lora = join([f"LoRA on the {part}" for part in facts.lora])
    trained = f"The projector and {lora} were trained" if lora else "Only the projector was trained"
    frozen = "the base models are frozen"
    healing = training_facts(facts)[0].get("healing")
    if healing:
        trained = (
            f"After pruning the encoder was healed ({healing['steps']:,} steps of distillation): its weights are not those of the "
            f"base model. {trained} on it"
        )
        frozen = "the language model is frozen"
    names = {part: base_name(facts, part) for part in ("audio", "text")}
    return (
        f"A SLAM-ASR model that transcribes {spoken}: a Whisper encoder ({names['audio']}, {encoder}), a projector, and a "
        f"causal language model ({names['text']}). {trained}; {frozen}."
    )


def requirements(facts: ModelFacts) -> str:
    """What must be installed."""
    needs_peft = facts.config.get("lora") or facts.config.get("encoder_lora")
    peft = ", `peft`" if needs_peft else ""
    if facts.config.get("checkpoint_form") != "adapter":
        base = ""
    elif len(facts.base_models) == 2:
        base = " The frozen parts are fetched from their own repositories, at the commits in `config.json`."
    else:
        base = (
            " The frozen parts are neither here nor, under the names in `config.json`, on the Hub: set `audio_model_id` and "
            "`text_model_id` there to where they are."
        )
    return (
        f"Needs `torch` and `transformers`{peft}; `soundfile` for other files than 16-bit wav, `soxr` for other rates than "
        f"16 kHz.{base}"
    )


def base_name(facts: ModelFacts, part: str) -> str:
    """The encoder's or LLM's name, linked and with its commit where it is on the Hub."""
    model_id = facts.config.get(f"{part}_model_id")
    revision = facts.config.get(f"{part}_model_revision")
    if model_id in facts.base_models and model_id:
        pin = f" at {code(revision[:10])}" if revision else ""
        return f"[{model_id}](https://huggingface.co/{model_id}){pin}"
    return f"{code(public_name(model_id))}, not on the Hub" if model_id else "origin not recorded"


def depth_summary(facts: ModelFacts) -> str:
    """Which blocks of the base encoder are in the model."""
    base = facts.config["audio_config"]["encoder_layers"]
    kept = facts.config.get("kept_encoder_layers") or list(range(base))
    if len(kept) == base:
        return f"All {base} blocks of the base encoder are kept."
    gone = [index for index in range(base) if index not in kept]
    return (
        f"{len(kept)} of the base encoder's {base} blocks are kept: {spans(kept)} (counted from 0). "
        f"Pruned: {spans(gone)}. Pruned blocks are in no file of this repository."
    )


def spans(indices: list[int]) -> str:
    """`[0, 1, 2, 5]` as `0-2, 5`."""
    groups: list[list[int]] = []
    for index in sorted(indices):
        if groups and index == groups[-1][-1] + 1:
            groups[-1].append(index)
        else:
            groups.append([index])
    return ", ".join(str(group[0]) if len(group) == 1 else f"{group[0]}-{group[-1]}" for group in groups)


def training_facts(facts: ModelFacts) -> tuple[TrainingRecord, str]:
    """What the run recorded, and in which file."""
    if facts.training:
        return facts.training, "training.json"
    for evaluation in facts.evaluations:
        if "train_seconds" in evaluation.metrics:
            return cast(TrainingRecord, evaluation.metrics), evaluation.path
    return {}, ""


def training_lines(facts: ModelFacts) -> list[str]:
    """Data, recipe, hardware, time and energy."""
    run, path = training_facts(facts)
    source = f" ([{plain(path)}]({plain(path)}))" if path else ""
    names = [data_name(str(entry.get("dataset", ""))) for entry in recipe_data(facts.recipe, "train")]
    hours = ((run.get("data") or {}).get("train") or {}).get("hours") if isinstance(run.get("data"), dict) else None
    data = join(list(dict.fromkeys(names))) if names else "not recorded"
    amount = f"{hours:.2f} hours of speech{source}" if hours else "hours not recorded"
    lines = [f"Data: {data}; {amount}."]
    lines += [lora_line(part, settings, facts) for part, settings in facts.lora.items()]
    lines.append(recipe_line(facts))
    seconds = run.get("train_seconds")
    if seconds:
        machine = run.get("hardware")
        lines.append(f"Hardware: {describe_hardware(machine)}{source}.")
        steps = f", {run['steps']:,} steps" if run.get("steps") else ""
        stages = [("healing the encoder for", run.get("healing")), ("a CTC warm start of", run.get("warm_start"))]
        earlier = [(name, stage) for name, stage in stages if stage]
        told = [f"{name} {duration(stage['seconds'])}, {stage['steps']:,} steps" for name, stage in earlier]
        before = f", after {join(told)}" if told else ""
        lines.append(f"Time: {duration(float(seconds))}{steps}{before}{source}.")
        lines.append(energy_line(float(seconds) + sum(stage["seconds"] for _, stage in earlier), machine))
    else:
        lines.append("Hardware, time and energy: not recorded.")
    return lines


def recipe_line(facts: ModelFacts) -> str:
    """Where the recipe is, and by which command the run is done again."""
    if not facts.recipe:
        return "Recipe: not in this repository."
    if facts.of_a_study:
        return (
            "Recipe: [recipe.yaml](recipe.yaml), that of one run of a study. The same run again: `slam-asr study` with the study's own "
            "file; `slam-asr train recipe.yaml` need not give the same model."
        )
    return "Recipe: [recipe.yaml](recipe.yaml). The same run again: `slam-asr train recipe.yaml`."


def lora_line(part: str, settings: dict[str, Any], facts: ModelFacts) -> str:
    """LoRA's size and place, and whether it is still apart from the weights."""
    targets = settings.get("target_modules") or []
    names = [targets] if isinstance(targets, str) else sorted(map(str, targets))
    key = "encoder_lora" if part == "encoder" else "lora"
    rank, alpha, dropout = (plain(settings.get(name, "not recorded")) for name in ("r", "lora_alpha", "lora_dropout"))
    state = "kept apart" if facts.config.get(key) else "merged into the weights"
    dora = ", DoRA" if settings.get("use_dora") else ""
    where = join([code(name) for name in names]) or "modules that were not recorded"
    return f"LoRA on the {part}: rank {rank}, alpha {alpha}, dropout {dropout}{dora}, on {where}; {state}."


def data_name(name: str) -> str:
    """A data set's name; of the project's own corpus, that nobody spoke it."""
    if name == "embedded":
        return (
            "the embedded corpus (sentences of the project's own grammar, spoken by eSpeak NG, a program under GPL-3.0-or-later that "
            "is no part of this model: synthetic speech)"
        )
    if name == NON_SPEECH:
        return "sounds without a word (noise, hum, clicks and music, made on the spot)"
    return plain(public_name(name))


def describe_hardware(machine: Hardware | None) -> str:
    """A machine as `trainers.provenance.hardware` records it, in words."""
    if not machine:
        return "not recorded"
    if machine.get("gpus"):
        return plain(f"{machine['gpus']} x {machine.get('device')}")
    return plain(f"{machine.get('cores', '?')} cores of a {machine.get('device')}")


def energy_line(seconds: float, machine: Hardware | None) -> str:
    """An estimate with its assumption; not a measurement."""
    if not machine:
        return "Energy: not estimated, since the hardware is not recorded."
    if machine.get("gpus"):
        device = str(machine.get("device"))
        watts = next((power for name, power in GPU_WATTS.items() if name in device), UNKNOWN_GPU_WATTS)
        watts, assumption = watts * int(machine["gpus"]), f"{watts} W for each GPU"
    else:
        watts, assumption = WATTS_PER_CORE * int(machine.get("cores", 1)), f"{WATTS_PER_CORE} W for each core"
    return f"Energy: about {watts * seconds / 3.6e6:.3g} kWh, estimated from the time and {assumption}; not measured."


def duration(seconds: float) -> str:
    """Seconds in a readable unit."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def decoding_lines(facts: ModelFacts) -> list[str]:
    """How transcripts are generated by default, which is also how the model was scored where a result does not say otherwise."""
    settings = facts.generation
    beams = settings.get("num_beams") or 1
    lines = [f"{'Greedy search' if beams == 1 else f'Beam search with {plain(beams)} beams'}, no sampling."]
    if settings.get("ctc_weight"):
        lines.append(
            f"The CTC head has its say in each token, with weight {settings['ctc_weight']:g} (joint decoding)."
        )
    limit = settings.get("max_new_tokens")
    rate = facts.config.get("max_tokens_per_second")
    lines.append(
        f"At most {plain(limit)} new tokens."
        if limit
        else f"At most {rate:g} new tokens for each second of audio; a transcript that repeats itself is ended."
        if rate
        else "Length limit not recorded."
    )
    window = facts.config.get("window_seconds")
    if window:
        lines.append(
            f"Long recordings are cut at pauses into windows of at most {window:g} s, the length of its training utterances."
        )
    penalty = settings.get("repetition_penalty")
    lines.append(f"Repetition penalty {penalty:g}." if penalty and penalty != 1 else "No repetition penalty.")
    lines.append(f"Prompt after the audio: {code(facts.config.get('prompt', ''))}")
    lines.append(
        "These are the defaults in [generation_config.json](generation_config.json) and [config.json](config.json)."
    )
    return lines


def limit_lines(facts: ModelFacts) -> list[str]:
    """What was measured of the model's limits."""
    limits = facts.limits
    languages = [plain(LANGUAGE_NAMES.get(language, language)) for language in facts.languages]
    lines = [
        f"Languages: trained or tested on {join(languages)}; others were not measured."
        if languages
        else "Languages: not recorded."
    ]
    if not limits:
        return [*lines, "Length, silence, noise and batches: not measured for these weights."]
    source = "([limits.json](limits.json))"
    lines.append(
        f"Length: one call takes {limits['max_seconds']:g} s at most {source}; the pipeline's way with longer audio is its own."
    )
    lines.append(f"Silence of {edge_line(limits['silence'])} {source}.")
    lines.append(f"Noise of {edge_line(limits['noise'])} {source}.")
    batch = limits["batch"]
    same = batch["same_transcripts"]
    lines.append(
        f"Batches: of {batch['recordings']} recordings of different lengths, {same} had the same transcript in a batch as alone; "
        f"the logits differed by {batch['largest_logit_difference']:.1e} at most {source}."
    )
    return lines


def edge_line(rows: list[Edge]) -> str:
    """What the pipeline answered where nobody speaks."""
    lengths = join([f"{row['seconds']:g} s" for row in rows])
    invented = [row for row in rows if row["text"] and not row["flagged"]]
    marked = [row for row in rows if row["text"] and row["flagged"]]
    if not invented and not marked:
        return f"{lengths} gave an empty transcript"
    example = code((invented or marked)[0]["text"][:60])
    parts = [f"invented text in {len(invented)} of {len(rows)} cases"] if invented else []
    parts += [f"text that is marked `no_speech` in {len(marked)} of {len(rows)} cases"] if marked else []
    return f"{lengths} gave {join(parts)}, for example {example}"


def speed_lines(facts: ModelFacts) -> list[str]:
    """Speed and memory of evaluated systems."""
    lines = []
    for evaluation in facts.evaluations:
        factor = evaluation.metrics.get("rtfx") or evaluation.metrics.get("eval_rtfx")
        if factor:
            machine = describe_hardware(evaluation.metrics.get("hardware"))
            memory = evaluation.metrics.get("peak_memory_bytes")
            used = f", {memory / 2**30:.1f} GiB at the peak" if memory else ""
            lines.append(
                f"Speed when it was scored, beside what else ran on {machine}: {factor:.1f} seconds of audio a second{used} ([{plain(evaluation.path)}]({plain(evaluation.path)}))."
            )
    return lines


def licence_text(facts: ModelFacts) -> str:
    """The derived licence in a sentence, and what the parts' licences ask to be shown."""
    licence = facts.licence
    name = code(licence.identifier) + (f" ({plain(licence.name)})" if licence.name else "")
    advice = " Look at each part's own terms." if licence.identifier == "other" else ""
    return "\n\n".join([f"{name}: {plain(licence.reason)}.{advice}", *notices(licence.parts)])


def weights_line(facts: ModelFacts) -> str:
    """The weights' fingerprint, and that of the evaluated ones where the form was changed for publishing."""
    line = f"Weights: `{facts.fingerprint}` (SHA-256)."
    if facts.publication.get("published_fingerprint") == facts.fingerprint:
        evaluated, conversion = (plain(facts.publication.get(key)) for key in ("evaluated_fingerprint", "conversion"))
        return (
            f"{line} The results name `{evaluated}`: the same model before publishing ({conversion}); its logits and "
            "transcript were found equal ([publication.json](publication.json))."
        )
    return f"{line} The result files name them as `model_fingerprint`."


def join(items: list[str]) -> str:
    """`a, b and c`"""
    return ", ".join(items[:-1]) + (" and " if len(items) > 1 else "") + items[-1] if items else ""


TEXTS: dict[str, Callable[[ModelFacts], Any]] = {
    "summary": summary_of,
    "requirements": requirements,
    "speed": speed_lines,
    "depth_summary": depth_summary,
    "training": training_lines,
    "decoding": decoding_lines,
    "limits": limit_lines,
    "licence": licence_text,
    "weights": weights_line,
}
"""What the template is given by each name: a text, or a list of sentences."""
