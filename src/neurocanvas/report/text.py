"""All sentences: of every finding, the verdict, controls and scores; for the console, the page and the tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from string import Formatter
from typing import Any

from neurocanvas.audit.overlap import OF_PICTURES, PAIRS, SHARED
from neurocanvas.audit.verdict import MADE_ELSEWHERE
from neurocanvas.config import RunSettings
from neurocanvas.evaluation.metrics import METRICS, SHARE
from neurocanvas.evaluation.statistics import SIGNIFICANT
from neurocanvas.findings import CODES, OF_BLOCKS, Finding, read_findings
from neurocanvas.generation.arms import ARMS

Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]
Note = str | tuple[str, str]

# Cases whose overlaps are printed; --json has all.
FEW_CASES = 3

DESIGNS = {"block": "concepts in blocks", "mixed": "concepts in mixed order", "unknown": "order unknown"}

# Order of the concepts in the confusion matrix -> its name.
ORDERS = {"semantic": "by meaning", "block": "by time of recording"}

# Column -> what is not known where test trials share it with those that train, and what holds where none does.
SCOPE = {
    "subject": ("Performance on persons who did not train", "The result carries over to persons who did not train"),
    "session": ("Performance on another day", "The result carries over to a session that did not train"),
    "run": ("Performance in another run of the recording", "The result carries over to runs that did not train"),
    "stimulus": (
        "Performance on images that did not train", "The result carries over to images that did not train",
    ),
    "picture": (
        "Performance on images that did not train, by the bytes of their files",
        "No file of a tested image holds the same bytes as one that trains",
    ),
    "concept": (
        "Performance on concepts that did not train", "The result carries over to concepts that did not train",
    ),
}  # fmt: skip

SELECTED = {"validation": "on validation trials", "final": "by no trials: the last epoch", "test": "on the test trials"}
NO_DRIFT = "They are no evidence that the brain's response to an image was decoded."

# Code of a finding -> its sentence. Names stand for its numbers, or for what `DERIVED` makes of them; `%` writes a
# percentage, `3` three decimals.
SENTENCES: dict[str, str] = {
    "block-on-both-sides": "Block design: trials of one block train and test. Accuracy is confounded with recording "
    "block, because slow drift of the recording alone can give these scores. " + NO_DRIFT,
    "gap-on-both-sides": "Block design: the {gap} trials before the test part of every block were dropped, but slower "
    "drift still links both sides. Accuracy is confounded with recording block. " + NO_DRIFT,
    "pictures-repeat": "Images of test trials were shown in training trials too. The scores say which known image "
    "was seen, not what a new one looks like.",
    "order-repeats": "Concepts came in nearly the same order in training and test recordings. Drift that follows the "
    "time since a recording began can be decoded across them.",
    "untrained-concepts": "{n} test trials are left out: their concepts have no training trials.",
    "pretrained-unknown": "Training started from the weights of a file, which does not say which trials trained it or "
    "chose its epoch. If tested trials were among them, the scores are too high.",
    "imported-unknown": "An encoder was imported, and its file does not say which trials trained it. The released code "
    "trains on the first 30 of every 50 images and chooses the epoch that is best on the other 20: scores on any of "
    "them are too high.",
    "transductive-training": "Domain adaptation saw the test trials without their labels: these scores are "
    "transductive.",
    "averaged-showings": "Features of each test image are averaged over up to {most} showings: these are not "
    "single-trial scores.",
    "blocked-design": "Block design: each concept was shown in one stretch of time, so slow drift alone can tell "
    "concepts apart. Unless whole blocks were held out, scores are confounded with recording block, whatever their "
    "p-value.",
    "few-units": "Only {n} {unit}: intervals are rough.",
    "coarse-p": "So few units can be exchanged that p cannot go below {least:.2g}.",
    "low-oracle": "The oracle arm reaches only {value:.2f} in two-way identification: the generator cannot draw what "
    "it is asked for, or the judge cannot see it. A low eeg score says little here.",
    "floor-differs": "The {arm} arm differs from chance in two-way identification ({value:.2f}, p {p:.2g}), though it "
    "knows nothing of the trial: something else gives the images away.",
    "best-out-of-reach": "No † can appear: comparing {models} models over {subjects} subjects gives p {least:3} at the "
    "least after Holm's correction, which is not below .05.",
    "paired-by-name": "Paired by name: both folders hold the same {n} file names.",
    "paired-by-table": "Paired by {table}: {n} rows.",
    "columns-unread": "Columns that were not read: {columns}.",
    "equal-pictures": "{n} seen images have an identical twin, such as {first} and {second}: identification "
    "cannot distinguish them.",
    "resized": "{n} of {of} images had another size and were resized to {width} x {height} px: the largest centred "
    "part of that shape, Lanczos.",
    "pairs-missing": "The pairing table {path} is missing, so block and order are unknown.",
    "rows-differ": "{source} has {rows} rows, but {scored} images were scored; run `neurocanvas evaluate` again.",
    "unseen-answers": "{n} of the predicted concepts belong to no test trial.",
    "pooled-training": "All rows with split = train are assumed to have trained the model of every subject.",
    "pictures-by-name": "Images were compared by their names, not by the bytes of their files: `neurocanvas caption` "
    "records those.",
    "scored-elsewhere": "scores/summary.json holds scores of images made elsewhere; run `neurocanvas evaluate` again "
    "for the run's own.",
    "other-trials": "{file} was made from other trials than those of the run folder's split; overlaps are those of "
    "the split.",
    "other-split": "Nothing can be concluded: {stale}.",
    "block-confounded": "Accuracy is confounded with recording block: {came}, {inside:%} of the test trials are of "
    "blocks that train too, and the block alone names the concept in {by_block:%}; {said}.",
    "block-unknown": "Accuracy is confounded with recording block, as far as is known: concepts came in blocks, and "
    "nothing says which blocks train; {ask}.",
    "no-answers": "Nothing can be concluded yet: there are no answers to test trials, and no scores of the arm eeg.",
    "chance": "Nothing can be concluded: no result is above chance; {said}.",
    "no-floor": "Nothing can be concluded: without the shuffled arm there is no floor to compare with; {said}.",
    "no-interval": "Nothing can be concluded: there are too few units for an interval; {said}.",
    "not-above-floor": "Nothing can be concluded: the score is not reliably above that of shuffled EEG ({beside}); "
    "{said}.",
    "unchecked": "The accuracy cannot be interpreted: without {missing}, {risks} cannot be ruled out; {said}.",
    "selection-on-test": "The accuracy is too high by an unknown amount: epoch, penalty or model was selected on the "
    "test trials; {said}.",
    "transductive": "The accuracy is transductive: it holds for a whole set of test trials, not for one alone: "
    "{steps}; {said}.",
    "known-pictures": "The accuracy says which known image was seen, not what a new one looks like: {shared} of "
    "{values} tested images train too; {said}.",
    "unchecked-pictures": "The accuracy cannot be interpreted: without {missing}, {risks} cannot be ruled out; {said}.",
    "same-order": "Drift since the start of a recording may explain the accuracy: concepts came in nearly the same "
    "order in training and test recordings; {said}.",
    "selection-unknown": "How much of the accuracy is selection is unknown: nothing says on which trials epoch, "
    "penalty or model were selected; {said}.",
    "clean": "Nothing was found that explains the accuracy away: {looked}; {said}.",
    "tells-blocks": "EEG distinguishes recording blocks ({said}).",
    "goes-with-seen": "Answers go with what was seen, or with something that goes with it ({said}).",
    "tells-unless-selected": "EEG distinguishes concepts, unless selection on the test trials made it so ({said}).",
    "tells-seen": "EEG distinguishes {what} ({said}).",
    "carries-over": "{carries}.",
    "not-response": "That the brain's response to an image was decoded: drift of the recording alone can give this.",
    "not-shared": "Anything of what training and testing share: {stale}.",
    "source-unknown": "Whether it comes from {risks}: {missing} would have to be known.",
    "untouched-unknown": "What the accuracy on untouched trials is: it was selected on the test trials.",
    "share-unknown": "How much of the accuracy is selection: which trials selected it is not known.",
    "whole-set": "Performance on one trial alone: transductive ({step}).",
    "whole-set-beside": "Performance on one trial alone by the scores computed beside this one: transductive ({rules} "
    "in scores/summary.json: retrieval{others}).",
    "p-out-of-reach": "Anything from p: {units} units give {least:3} at the least.",
    "neighbours": "That errors are about content: wrong answers of {model} name concepts recorded {distance:.0f} "
    "trials away, {expected:.0f} if answers were shifted along the recording.",
    "shared": "{lacks}: {shared} of {values} tested train too.",
    "sharing-unknown": "{lacks}: which {column} trains is not known.",
    "one-block-only": "every concept has one block only, so accuracy within this recording is confounded with the "
    "block; test across sessions or subjects",
    "nothing-decoded": "the control's decoder ({decoder}, on single trials) is not above chance (p {p:.2g}), so there "
    "is nothing to explain",
    "no-baseline": "the data set holds no time before the image that is long enough for the features",
    "no-signal": "the signal is missing; the data set has it",
    "no-embeddings": "there are no embeddings of the concepts; `neurocanvas embed` makes them",
    "no-low-level": "there are no images to compare; `neurocanvas pictures` puts them in place",
    "no-arms": "no null arm is scored beside the arm eeg; `neurocanvas generate --arm eeg,shuffled,mean,random` "
    "and then `neurocanvas evaluate` add some",
    "too-few-pictures": "{images} images of {concepts} concepts are too few to be mixed",
    "one-concept-per-fold": "every fold tests one concept only",
    "no-training-in-session": "no tested trial has a training trial of its concept in its session",
    "equal-distances": "all tested trials are equally far from training trials of their concept",
    "few-shifts": "the {blocks} blocks can be shifted in {ways:.0f} ways only, too few for a p below .05",
    "few-concepts": "{concepts} concepts can exchange names in too few ways for a p below .05",
    "no-errors": "no tested trial is named wrongly",
    "whole-blocks": "The splits keep blocks whole, so no trial of a tested block trains.",
    "whole-runs": "Concepts came in mixed order and the splits keep runs whole, so no trial of a tested run trains.",
    "mixed-order": "Concepts came in mixed order, so this is a change of the recording between runs, not a label that "
    "follows time.",
    "concepts-left-out": "{n} concepts with one block only are left out.",
    "no-repeats": "No tested image was trained.",
    "repeats": "{share:%} of the tested trials show an image that was trained.",
    "codes-bound": "The tested concepts were trained, so random codes were bound to do well.",
    "phases-bound": "These features hardly depend on phases, so random ones are bound to serve as well.",
    "hardest-arm": "Hardest to beat is the arm {arm}.",
    "semantic-errors": "Errors {to} to semantic neighbours (r {r:.2f}, p {p:.2g}).",
    "controls": "{overall}",
}


def _said(one: Mapping[str, Any]) -> str:
    """The best result in words."""
    if "metric" not in one:
        return "none was tested"
    p = f"p {p_value(one['p'])}" if "p" in one else "not tested"
    if one["metric"] != "two-way":
        return f"{one['metric']} {short(one['value'])} of {one['model']}, chance {short(one['chance'])}, {p}"
    spread = f"95 % interval {100 * one['low']:.0f}–{percent(one['high'])}" if "low" in one else "no interval"
    place = one.get("place")
    way = "" if place is None or place <= 0 else f", {percent(place)} of the way from shuffled EEG to the true caption"
    whose = one["model"] if one["model"] == MADE_ELSEWHERE else f"images made from EEG by {one['model']}"
    scored = f"identify the seen image in {percent(one['value'])} of pairs (chance {percent(one['chance'])}"
    return f"{whose} {scored}, {spread}, {p}){way}"


def _missing(one: Mapping[str, Any]) -> str:
    """What a table or run lacks, or what is not known of images made elsewhere."""
    names = ("the column order or block", "the column stimulus, image or sha256", "the trials that train (rows with "
             "split = train)")  # fmt: skip
    if one["elsewhere"]:
        names = ("the columns concept and order or block of the pairing table", "the seen images", "the trials that "
                 "trained what made the images")  # fmt: skip
    found = [name for name, key in zip(names, ("order", "pictures", "training"), strict=True) if one[key]]
    return " and ".join([", ".join(found[:-1]), found[-1]] if len(found) > 1 else found)


def _stale(one: Mapping[str, Any]) -> str:
    """What was made on another split than run.toml says, and what to run."""
    files = f"{one['file']} and {one['more']} more were" if one["more"] else f"{one['file']} was"
    if one["stage"] == "classify":
        return (
            f"{files} made from other trials than the split of the run folder tests; run `neurocanvas classify` again"
        )
    verbs = ", ".join(f"`neurocanvas {verb}`" for verb in ("train", "predict", "generate", "evaluate"))
    return f"{files} trained on another split than that of the run folder; run {verbs} again"


def _looked(one: Mapping[str, Any]) -> str:
    looked = ["whole blocks were held out" if one["design"] == "block" else "concepts came in mixed order"]
    looked += ["no tested image trains"] * bool(one["compared"])
    return ", ".join([*looked, f"selection was {SELECTED[one['selection']]}"])


def _beside(one: Mapping[str, Any]) -> str:
    p = f", p {p_value(one['p_floor'])}" if "p_floor" in one else ""
    return f"{percent(one['floor'])}, 95 % interval {100 * one['floor_low']:.0f}–{percent(one['floor_high'])}{p}"


def _overall(one: Mapping[str, Any]) -> str:
    """Sum up the controls; the sentence of the worst one stands before this."""
    missing = f" {one['missing']} could not be computed." if one["missing"] else ""
    if not one["computed"]:
        return "No control could be computed."
    if not one["fired"]:
        return f"No control fired ({one['computed']} computed).{missing}"
    fired, loose = one["fired"].split(", "), one["loose"].split(", ") if one["loose"] else []
    counted = f"{len(fired)} of {one['computed']} controls fired ({one['fired']})."
    if len(loose) == len(fired):
        return f"{counted} None of them survives Holm's correction for their number.{missing}"
    return counted + (f" Without Holm's correction only: {one['loose']}." if loose else "") + missing


# Name in `SENTENCES` -> what a finding's numbers make of it.
DERIVED: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "said": _said, "missing": _missing, "stale": _stale, "looked": _looked, "beside": _beside, "overall": _overall,
    "came": lambda one: "concepts came in blocks" if one["design"] == "block" else "blocks differ in their concepts",
    "risks": lambda one: " and ".join(
        ["the recording block"] * bool(one["order"] or one["training"])
        + ["repeated images"] * bool(one["pictures"] or one["training"])
    ),
    "ask": lambda one: "ask whoever made the images"
    if one["elsewhere"]
    else "add the trials that train (rows with split = train)",
    "what": lambda one: "concepts" if one["metric"] == "accuracy" else "pictures",
    "lacks": lambda one: SCOPE[one["column"]][0],
    "carries": lambda one: SCOPE[one["column"]][1],
    "others": lambda one: f"; the {one['alone']} rule is not" if one["alone"] else "",
    "to": lambda one: "go" if one["p"] <= SIGNIFICANT else "are not shown to go",
}  # fmt: skip


def sentence(one: Finding | Mapping[str, Any]) -> str:
    """The sentence of a finding, or of its record in a JSON file."""
    found, parts = one if isinstance(one, Finding) else read_findings([one])[0], []
    for literal, name, form, _ in Formatter().parse(SENTENCES[found.code]):
        parts.append(literal)
        if name is not None:
            value: Any = DERIVED[name](found.numbers) if name in DERIVED else found.numbers[name]
            parts.append(percent(value) if form == "%" else short(value) if form == "3" else format(value, form or ""))
    return "".join(parts)


def warned(rows: Sequence[Mapping[str, Any]]) -> list[Note]:
    """Findings of a JSON file as notes."""
    return [("Note" if row["severity"] == "info" else "Warning", sentence(row)) for row in rows]


def verdict(audit: Mapping[str, Any]) -> str:
    """Sum up an audit; the gravest finding comes first, with the cases that have it."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for case in sorted(audit["cases"], key=lambda case: [*CODES].index(case["verdict"]["code"])):
        found.setdefault(case["verdict"]["code"], []).append(case)
    if len(found) < 2:
        return sentence(audit["verdict"])
    parts = []
    for cases in found.values():
        others = f" and {len(cases) - 1} more" if len(cases) > 1 else ""
        parts.append(f"{sentence(cases[0]['verdict']).removesuffix('.')} ({cases[0]['name']}{others})")
    return "; ".join([parts[0], *(part[0].lower() + part[1:] for part in parts[1:])]) + "."


def control_sentence(row: Mapping[str, Any]) -> str:
    """Say how a control came out, in the words of its row of `CONTROLS`."""
    from neurocanvas.audit.controls.base import LARGE_SHARE
    from neurocanvas.audit.controls.registry import CONTROLS

    of = row["subjects"]
    reasons = "; ".join(
        sentence(one) if of is None or one["subjects"] == of["of"] else f"in {one['subjects']} of {of['of']} subjects "
        f"{sentence(one)}"
        for one in row["reasons"]
    )  # fmt: skip
    if row["fired"] is None:
        return f"cannot be computed: {reasons}"
    said = CONTROLS[row["control"]].silent
    if row["fired"]:
        share = row["share"]
        some = "an unknown part" if share is None else "most" if share >= LARGE_SHARE else "part"
        said = CONTROLS[row["control"]].fires.format(some=some)
    counted = f" (fired in {of['fired']} of {of['computed']} subjects)" if of else ""
    return f"{said}{counted}" + (f"; {reasons}" if reasons else "")


def controls_verdict(found: Mapping[str, Any]) -> str:
    """Sum up the controls: serious reasons first, then the worst that is firm."""
    reasons = []
    for row in found["rows"]:
        serious = [one for one in row["reasons"] if one["severity"] == "serious"]
        said = control_sentence({**row, "fired": None, "reasons": serious}).removeprefix("cannot be computed: ")
        reasons += [f"{capitalised(said)}."] if serious else []
    worst = [row for row in found["rows"] if row["control"] == found["overall"]["numbers"].get("worst")]
    worst_said = [f"{capitalised(control_sentence(row))}." for row in worst]
    return " ".join([*dict.fromkeys(reasons), *worst_said, sentence(found["overall"])])


def shown(verb: str, found: Mapping[str, Any]) -> tuple[list[Table], list[Note]]:
    """Tables and sentences that the command line prints of what a verb found."""
    if verb == "train":
        return [(found["title"], found["header"], found["lines"])], warned(found["findings"])
    if verb in ("classify", "benchmark"):
        tables = [(table["title"], table["header"], table["lines"]) for table in found["tables"]]
        once = dict.fromkeys(note for table in found["tables"] for note in warned(table["findings"]))
        return tables, [*once, found["explanation"]]
    if verb == "controls":
        header = ["control", "", "effect", "low", "high", "p", "Holm", "what it says"]
        lines = []
        for row in found["rows"]:
            numbers = [
                "–" if row[name] is None else f"{row[name]:.3f}" for name in ("effect", "low", "high", "p", "p_holm")
            ]
            said = " ".join([f"{control_sentence(row)}.", *map(sentence, row["notes"])])
            lines.append([row["control"], OUTCOMES[row["fired"]], *numbers, said])
        notes: list[Note] = [
            "The decoder is a shrinkage LDA on the features of single trials, under the split of the settings.",
            ("Controls", controls_verdict(found)),
        ]
        return [(f"Controls, {found['protocol']}", header, lines)], notes
    arms = found["arms"]
    first = next(iter(arms))
    title = (
        f"{found['n_trials']} test trials of {found['n_pictures']} images; "
        f"95 % intervals over {found['unit']}, p of {first} by permuting {found['exchanged']}"
    )
    lines = []
    for metric, score in arms[first].items():
        cells = [" ".join(short(one[key], 2) for key in ("value", "low", "high") if one[key] is not None)
                 for one in (scores[metric] for scores in arms.values())]  # fmt: skip
        p = "–" if score["p"] is None else f"{score['p']:.4f}"
        lines.append([metric, *cells, short(score["chance"], 2), p])
    notes = []
    for rule, one in found.get("retrieval", {}).items():
        if not one["transductive"] or one.get("rule") == "greedy":  # summary.json has the others
            how = f"cosine with {one['space']}" if "space" in one else rule
            how += ", both sides centred, which uses all test trials" if one["transductive"] else ""
            notes.append(
                f"Predictions retrieve the seen stimulus among {one['n_pictures']:g} ({how}): top-1 "
                f"{short(one['top1'], 2)} (chance {short(one['chance1'], 2)}), top-5 {short(one['top5'], 2)} "
                f"({short(one['chance5'], 2)}), median rank {one['median_rank']:g}."
            )
    if found.get("not_computed"):
        notes.append(f"Not computed, because weights are not here: {', '.join(found['not_computed'])}.")
    return [(title, ["score", *arms, "chance", "p"], lines)], [*notes, *warned(found["findings"])]


# Whether a control fired -> in words.
OUTCOMES: Mapping[bool | None, str] = {True: "fired", False: "silent", None: "not computed"}


def audited(audit: Mapping[str, Any]) -> tuple[list[Table], list[Note]]:
    """Tables and sentences that the command line prints of an audit after its verdict."""
    cases, lines = audit["cases"], []
    for case in cases:
        for one in case["results"]:
            interval = "–" if one["low"] is None else f"{short(one['low'])} {short(one['high'])}"
            lines.append([
                case["name"], one["model"], one["metric"], short(one["value"]), interval, short(one["chance"]),
                short(one["p"], 4), "–" if one["needed"] is None else f"{one['needed']} of {one['n']}",
                "–" if one["majority"] is None else percent(one["majority"]),
                one["selection"] + (", transductive" if one["transductive"] else ""),
            ])  # fmt: skip
    header = ["tested", "model", "score", "value", "95 %", "chance", "p", "needed", "majority", "selected"]
    tables: list[Table] = [(f"Audit of {audit['source']}", header, lines)] if lines else []
    for case in cases[:FEW_CASES]:
        there = {row["pair"] for row in case["overlaps"]} - {"known/test"}
        pairs = [pair for pair in PAIRS if pair in there]
        cells = {(row["column"], row["pair"]): f"{row['shared']} of {row['values']}" for row in case["overlaps"]}
        for pair in pairs:
            cells["trials", pair] = "/".join(str(case["trials"].get(part, 0)) for part in pair.split("/"))
            for name in SHARED:  # a dash where there is nothing to share: blocks in mixed order, sessions of a gallery
                nothing = (name == "block" and case["design"] == "mixed") or (
                    pair.endswith("gallery") and name not in OF_PICTURES
                )
                cells.setdefault((name, pair), "–" if nothing else "?")
        rows = [[name, *(cells[name, pair] for pair in pairs)] for name in ("trials", *SHARED)]
        tables += [(f"{case['name']}: {DESIGNS[case['design']]}", ["shared values", *pairs], rows)] if pairs else []
    notes: list[Note] = []
    for title, kind in (("Can be concluded", "can"), ("Cannot be concluded", "cannot")):
        names: dict[str, list[str]] = {}  # every sentence once, with the cases where it does not hold for all
        for case in cases:
            for text in map(sentence, case[kind]):
                names.setdefault(text, []).append(case["name"])
        for text, of in names.items():
            more = f" and {len(of) - FEW_CASES} more" if len(of) > FEW_CASES else ""
            notes.append((f"{title} ({'; '.join(of[:FEW_CASES])}{more})" if len(of) < len(cases) else title, text))
    return tables, [*notes, *dict.fromkeys(note for case in cases for note in warned(case["findings"]))]


def classification_sentence(rows: Sequence[Mapping[str, Any]]) -> str:
    """Sum up one protocol's rows of the benchmark."""
    first = [row for row in rows if row["granularity"] == rows[0]["granularity"]]
    best = max(first, key=lambda row: row["mean"])
    right, chance = 100 * best["mean"], 100 * best["chance"]
    name = best["title"].rstrip("*")
    scored = f"{name} names the concept of {right:.1f}\u00a0% of the trials (chance {chance:.1f}\u00a0%)"
    if any(one["code"] in OF_BLOCKS for row in rows for one in row["findings"]):
        return f"{scored}, on a split whose accuracy is confounded with recording block."
    corrected = f"p {p_value(best['p_holm'])} after correction for all tests"
    chance_only = best["p_holm"] >= SIGNIFICANT
    return f"No model is above chance: {scored}, {corrected}." if chance_only else f"{scored}, {corrected}."


def definitions(
    settings: RunSettings,
    summary: Mapping[str, Any],
    trials: Sequence[Mapping[str, str]],
    ch_names: Sequence[str],
    model: Mapping[str, Any],
) -> list[tuple[str, str]]:
    """List what was run; `model` is the first decoder that made the images."""
    made, encoder, features, how = settings.generate, settings.encoder, settings.features, model["settings"]
    data: str = settings.data.name
    if settings.simulate is not None:
        data = f"simulated EEG, {settings.simulate.design} design, in the layout of EEG-ImageNet"
    chosen = f"; granularity {settings.data.granularity}" if settings.data.name == "eeg-imagenet" else ""
    hidden = how.get("encoder__hidden")
    layers = f", hidden layers {' · '.join(map(str, hidden))}" if hidden else ""
    seeds = [] if settings.simulate is None else [f"simulation {settings.simulate.seed}"]
    seeds += [f"split {settings.split.seed}", f"encoder {how.get('seed', encoder.seed)}", f"images {made.seed}"]
    tested = "images, their showings averaged" if settings.split.average_test else "trials"
    pictures = len({row["image"] for row in trials})
    return [
        ("Data", data + chosen),
        ("Subjects", f"{len(summary['subjects'])}"),
        ("Trials", f"{len(trials):,} of {pictures:,} images, {len(summary['concepts'])} concepts tested"),
        ("Electrodes", ", ".join(ch_names) if len(ch_names) <= 8 else f"{len(ch_names)}"),
        ("Features", f"differential entropy ({features.method}), {features.tmin:g} to {features.tmax:g} s after onset"),
        ("Split", f"{settings.split.protocol}; tested on {summary['n_trials']:,} {tested}"),
        ("Encoder", f"{model['name']}{layers}, {how.get('n_components', encoder.components)} components"),
        ("Networks", f"captions {settings.family}, images {made.family}, judge {settings.evaluate.judge}"),
        ("Diffusion", f"{made.scheduler}, {made.steps} steps, guidance {made.guidance:g}, scale {made.scale}"),
        ("Statistics", f"{settings.evaluate.permutations:,} permutations, {settings.evaluate.resamples:,} resamples"),
        ("Seeds", ", ".join([*seeds, f"scores {settings.evaluate.seed}"])),
    ]  # fmt: skip


def metric_words(
    summary: Mapping[str, Any], metric: str, n_way: int | str, *, numbered: bool = False
) -> tuple[str, str, bool]:
    """Title and meaning of a metric, from its row in `METRICS` or from summary.json, and whether it is a share."""
    said, known = summary.get("metrics", {}).get(metric, {}), METRICS.get(metric)
    share = said.get("unit", known.unit if known else "") == SHARE
    if known and known.meaning:
        title = "{n}-way identification" if metric == "n_way" else known.title[:1].upper() + known.title[1:]
        return title.format(n=n_way), known.meaning.format(n=n_way), share
    chance = str(said.get("chance") or "")
    if numbered and chance.replace(".", "", 1).isdigit():  # it has a column of its own
        chance = ""
    parts = [
        "lower is better" if said.get("direction") == "lower" else "higher is better",
        f"chance: {chance}" if chance else "",
        f"as in {said['variant']}" if said.get("variant") else "",
        str(said.get("reference", "")),
    ]
    return said.get("title", known.title if known else metric), "; ".join(part for part in parts if part), share


def ranking_arm(arms: Sequence[str]) -> str:
    """Choose the arm whose images rank the trials: the first that knows something of the EEG."""
    return next((arm for arm in arms if arm not in ARMS or ARMS[arm].informed), arms[0])


def number(value: float, share: bool, *, unit: bool = True, digits: int = 1) -> str:
    """Write a score, as a percentage if it is a share; a dash where it is not known."""
    if not math.isfinite(value):
        return "–"
    text = f"{round(100 * value, digits) + 0.0:.{digits}f}" + ("\N{NO-BREAK SPACE}%" if unit else "")  # no −0.0
    plain = f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
    return (text if share else plain).replace("-", "−")


def interval(score: Mapping[str, Any], share: bool) -> str:
    """Write the interval of a score."""
    low, high = score.get("low"), score.get("high")
    if low is None or high is None:
        return "–"
    return f"{number(low, share, unit=False)} – {number(high, share, unit=False)}"


def p_value(p: float) -> str:
    """Write a p-value with two figures, or as a bound below .0001."""
    if p < 0.0001:
        return "< .0001"
    digits = 2 if p >= 0.01 else 3 if p >= 0.001 else 4
    return f"{p:.{digits}f}".removeprefix("0")


def short(value: float | None, digits: int = 3) -> str:
    """A number without the zero before the point; a dash for None."""
    text = "–" if value is None else f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%".replace("-", "−")


def capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
