"""All sentences: of every finding, the verdict, controls and scores; for the console, the page and the tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from string import Formatter
from typing import Any

from neurocanvas.audit.overlap import OF_PICTURES, PAIRS, SHARED
from neurocanvas.audit.verdict import MADE_ELSEWHERE
from neurocanvas.config import RunSettings
from neurocanvas.data.trials import unique_names
from neurocanvas.evaluation.metrics import JUDGED, METRICS, SHARE
from neurocanvas.evaluation.statistics import SIGNIFICANT
from neurocanvas.findings import CODES, OF_BLOCKS, Finding, read_findings
from neurocanvas.generation.arms import ARMS

Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]
Note = str | tuple[str, str]

# Cases whose overlaps are printed; --json lists all.
FEW_CASES = 3

DESIGNS = {"block": "concepts in blocks", "mixed": "concepts in mixed order", "unknown": "order unknown"}

# Order of the concepts in the confusion matrix -> its name.
ORDERS = {"semantic": "by meaning", "block": "by time of recording"}

# Arm -> what its images are made from. An arm that is registered elsewhere brings its own `meaning`.
ARM_MEANINGS: dict[str, str] = {
    "eeg": "Made from what the encoder predicts from this trial's EEG.",
    "shuffled": "Made from the prediction for another trial of the same subject: the floor. What it scores above "
    "chance does not come from this trial's EEG.",
    "mean": "Made from the mean of the training targets, the same for every trial: what knowing nothing looks like.",
    "random": "Made from the caption of a training image that is drawn at random, whatever the EEG says.",
    "oracle": "Made from the true target, the embedding of the seen image's own caption: the ceiling that the "
    "generator and the judge leave to any EEG.",
    "retrieval": "Made from the caption of the training image whose embedding is nearest to the prediction.",
    "class-name": "Made from the words “a photo of a …” with the concept that is nearest to the prediction.",
    "retrieved-start": "Made from the prediction, but drawn over the training image that is nearest to it.",
    "sketched-start": "Made from the prediction, but drawn over a small image that ridge regression predicts.",
    "best-of": "Made from the prediction several times; the image whose own caption is nearest to it is chosen.",
}

# Column -> what is untested if the training and test set share values of it, and what holds if they share none.
SCOPE = {
    "subject": ("Generalisation to new subjects", "The result generalises to subjects not in the training set"),
    "session": ("Generalisation to another session", "The result generalises to a session not in the training set"),
    "run": ("Generalisation to another run", "The result generalises to runs not in the training set"),
    "stimulus": ("Generalisation to new images", "The result generalises to images not in the training set"),
    "picture": (
        "Generalisation to new images, compared by the bytes of their files",
        "No test image is byte-identical to a training image",
    ),
    "concept": ("Generalisation to new concepts", "The result generalises to concepts not in the training set"),
}

SELECTED = {
    "validation": "used validation trials only",
    "final": "used no trials (last epoch)",
    "test": "used the test trials",
}
NO_DRIFT = "The scores are no evidence that the brain's response to an image was decoded."

RECOGNISED = (
    "The judge {judge} recognises the concept of {accuracy:%} of the {n} seen images (chance {chance:%}, p {p:.2g}; at "
    "least {least:%} are needed). "
)

# Code of a finding -> its sentence. Fields are its numbers, or phrases that `DERIVED` makes of them; `%` formats as a
# percentage, `3` with three decimals.
SENTENCES: dict[str, str] = {
    "block-on-both-sides": "Block design: training and test set share recording blocks. Accuracy is confounded with "
    "recording block, because slow drift of the recording alone can produce these scores. " + NO_DRIFT,
    "gap-on-both-sides": "Block design: the {gap} trials before the test trials of every block were dropped, but "
    "slower drift still links training and test trials. Accuracy is confounded with recording block. " + NO_DRIFT,
    "pictures-repeat": "Test images are in the training set. The scores show discrimination among known images, not "
    "generalisation to new ones.",
    "order-repeats": "Concepts were presented in nearly the same order in training and test recordings. Drift that "
    "follows the time since the start of a recording can be decoded across recordings.",
    "events": "{events} events of the recordings gave {trials} trials{drops}.",
    "channels-left-out": "Channels that are not used: {names}.",
    "bad-channels": "Bad channels, which are not used or interpolated: {names}.",
    "bands-left-out": "Bands that these recordings cannot hold are left out: {names}.",
    "missing-images": "{trials} trials of {images} images whose files are missing are left out.",
    "same-signals": "{trials} trials hold only {signals} different signals: copies, or windows of one trial.",
    "untrained-concepts": "{n} test trials are excluded: their concepts are not in the training set.",
    "pretrained-unknown": "Training started from the weights of a file, which does not list its training and "
    "validation trials. If test trials were among them, the scores are too high.",
    "imported-unknown": "An encoder was imported, and its file does not list its training trials. The released code "
    "trains on the first 30 of every 50 images and selects the epoch that is best on the other 20: scores on these "
    "images are too high.",
    "transductive-training": "Domain adaptation used the test trials without their labels: these scores are "
    "transductive.",
    "averaged-showings": "Features of each test image are averaged over up to {most} repetitions: these are not "
    "single-trial scores.",
    "captions-repeat": "{shared} of {values} test images have word for word the caption of a training image, so their "
    "target is a training target.",
    "captions-cut": "{n} of {of} captions have more than {tokens} tokens, which is all that CLIP reads: the rest is "
    "cut off.",
    "equal-embeddings": "{n} of {of} images have the {target} embedding of another one, though their captions or files "
    "differ, such as {first} and {second}: no decoder can tell them apart.",
    "blocked-design": "Block design: each concept was presented in one stretch of time, so slow drift alone can "
    "distinguish concepts. Unless whole blocks were held out, scores are confounded with recording block, whatever "
    "their p-value.",
    "few-units": "Only {n} {unit}: intervals are rough.",
    "coarse-p": "With this few exchangeable units, p cannot be below {least:.2g}.",
    "low-oracle": "The oracle arm reaches only {value:.2f} in two-way identification: the generator cannot draw its "
    "prompts, or the judge cannot recognise them. A low eeg score is not informative.",
    "judge-left-out": RECOGNISED + "Its scores are left out: choose a judge that knows such images (--family), or "
    "--judge-anyway.",
    "judge-poor": RECOGNISED + "What it says of generated images is mostly error.",
    "judge-unchecked": "Whether the judge {judge} recognises the seen images was not tested: their concepts are not "
    "known, or the images are too few.",
    "floor-differs": "The {arm} arm differs from chance in two-way identification ({value:.2f}, p {p:.2g}), although "
    "it uses no information on the trial: the images leak through another route.",
    "best-out-of-reach": "No † is possible: with {models} models and {subjects} subjects, p is at least {least:3}, "
    "which is not below .05.",
    "paired-by-name": "Paired by name: both folders have the same {n} file names.",
    "paired-by-table": "Paired by {table}: {n} rows.",
    "columns-unread": "Unknown columns were ignored: {columns}.",
    "equal-pictures": "{n} seen images are identical to another one, such as {first} and {second}: identification "
    "cannot distinguish them.",
    "resized": "{n} of {of} images had another size: their largest centred crop of this shape was resized to "
    "{width} x {height} px (Lanczos).",
    "pairs-missing": "The pairing table {path} is missing, so block and presentation order are unknown.",
    "rows-differ": "{source} has {rows} rows, but {scored} images were scored; run `neurocanvas evaluate` again.",
    "unseen-answers": "{n} of the predicted concepts do not occur in test trials.",
    "one-answer": "All {n} predictions{by} are {name}: a constant answer knows nothing of the trial.",
    "identical-images": "{n} of {of} images of the arm {arm} are identical to another one of it.",
    "matrix-alone": "A matrix says nothing of order, images and training: its answers as a table of predictions do.",
    "rows-are-columns": "No gallery is named: the item of row i is taken to be column i.",
    "no-one-to-one": "{rows} rows have {names} names: two rows of one name cannot both be right one to one.",
    "constant-rows": "{n} of {of} rows have one score for all columns, which is no answer: they score chance.",
    "inflated": "Scores are inflated: {metric} of {model} is {margin:+.3f} higher in the leaky results, and higher in "
    "{share:%} of {n} subjects (Wilcoxon p {p:.2g} after correction).",
    "not-inflated": "Inflation is not shown: {metric} of {model} differs by {margin:+.3f}, and is higher in {share:%} "
    "of {n} subjects (Wilcoxon p {p:.2g} after correction).",
    "few-pairs": "With {n} subjects, p of Wilcoxon's test cannot be below {least:.2g}.",
    "rows-of-trials": "{rows} test rows are {trials} trials: rows of one trial (windows, samples, seeds) are one unit.",
    "pooled-training": "All rows with split = train are assumed to be in the training set of every subject.",
    "pictures-by-name": "Images were compared by name, not by the bytes of their files, which `neurocanvas caption` "
    "records.",
    "scored-elsewhere": "scores/summary.json has scores of images from another source; run `neurocanvas evaluate` to "
    "score those of this run.",
    "other-trials": "{file} was made from other trials than those in the split of the run folder; overlaps refer "
    "to the split.",
    "other-split": "Nothing can be concluded: {stale}.",
    "block-confounded": "Accuracy is confounded with recording block: {presented}, {inside:%} of the test trials come "
    "from blocks with training trials, and the block alone predicts the concept of {by_block:%} of them; {result}.",
    "same-signal": "The accuracy is no evidence: {trials} of {of} test trials hold the same signal as a training "
    "trial; {result}.",
    "block-unknown": "Accuracy is confounded with recording block unless whole blocks were held out: concepts were "
    "presented in blocks, and the blocks of the training trials are unknown; {ask}.",
    "no-answers": "Nothing can be concluded yet: predictions of test trials and scores of the arm eeg are missing.",
    "chance": "No result is significantly above chance; {result}.",
    "no-floor": "Nothing can be concluded: without the shuffled arm there is no noise floor; {result}.",
    "not-above-floor": "Not significant: the score is not significantly above that of shuffled EEG ({floor:%}, paired "
    "p {p_floor:.2g}); {result}.",
    "unchecked": "The accuracy cannot be interpreted: without {missing}, {risks} cannot be ruled out; {result}.",
    "selection-on-test": "The accuracy is too high by an unknown amount: epoch, penalty or model was selected on the "
    "test trials; {result}.",
    "transductive": "The accuracy is transductive: it holds for a set of test trials, not for single trials: "
    "{steps}; {result}.",
    "known-pictures": "The accuracy shows discrimination among known images, not generalisation to new ones: {shared} "
    "of {values} test images are in the training set; {result}.",
    "unchecked-pictures": "The accuracy cannot be interpreted: without {missing}, {risks} cannot be ruled out; "
    "{result}.",
    "same-order": "Drift since the start of a recording may explain the accuracy: concepts were presented in "
    "nearly the same order in training and test recordings; {result}.",
    "selection-unknown": "The accuracy may be inflated by model selection: it is unknown on which trials epoch, "
    "penalty or model were selected; {result}.",
    "clean": "The split and the selection do not explain the accuracy: {checked}; {result}. {controls}",
    "tells-blocks": "EEG distinguishes recording blocks ({result}).",
    "goes-with-seen": "Predictions are related to the stimulus, or to something correlated with it ({result}).",
    "tells-unless-selected": "EEG distinguishes concepts, or this is an effect of selection on test trials ({result}).",
    "tells-seen": "EEG distinguishes {what} ({result}).",
    "carries-over": "{carries}.",
    "not-response": "That the brain's response to an image was decoded: drift of the recording alone can produce this.",
    "not-shared": "Overlap of the training and test set: {stale}.",
    "source-unknown": "Whether it comes from {risks}: this needs {missing}.",
    "untouched-unknown": "Accuracy on untouched trials: model selection used the test trials.",
    "share-unknown": "The effect of model selection on the accuracy: the trials it used are unknown.",
    "whole-set": "Performance on single trials: transductive ({step}).",
    "not-single": "Performance on single trials: features of up to {most} repetitions of a test image were averaged.",
    "whole-set-beside": "Performance on single trials in other scores: {rules} in scores/summary.json use all test "
    "trials jointly{others}.",
    "p-out-of-reach": "Significance: with {units} units, p is at least {least:3}.",
    "neighbours": "That errors reflect content: {share:%} of the wrong predictions of {model} name the concept of an "
    "adjacent block, {expected:%} if blocks are shifted along the recording (p {p:.2g} after correction).",
    "shared": "{lacks}: {shared} of {values} in the test set are also in the training set.",
    "sharing-unknown": "{lacks}: no {column} of the training trials is known.",
    "one-block-only": "every concept has one block only, so accuracy within this recording is confounded with the "
    "block; test across sessions or subjects",
    "nothing-decoded": "the control's decoder ({decoder}, on single trials) is not above chance (p {p:.2g}), so there "
    "is no accuracy to explain",
    "no-baseline": "the data set has no pre-stimulus interval that is long enough for the features",
    "no-signal": "the signal is missing, but the data set has it",
    "no-embeddings": "there are no embeddings of the concepts; run `neurocanvas embed`",
    "no-low-level": "there are no images to compare; run `neurocanvas pictures`",
    "no-arms": "no null arm is scored; run `neurocanvas generate --arm eeg,shuffled,mean,random` and then "
    "`neurocanvas evaluate`",
    "too-few-pictures": "{images} images of {concepts} concepts are too few for mixtures",
    "one-concept-per-fold": "every fold tests one concept only",
    "no-blocks": "concepts were presented in mixed order, so time says nothing about the concept",
    "whole-blocks": "the split holds out whole blocks, so no tested block is in the training set",
    "whole-runs": "concepts were presented in mixed order and the split holds out whole runs, so no tested run is in "
    "the training set",
    "no-repeats": "no test image is in the training set",
    "no-training-in-session": "no test trial has a training trial of its concept in its session",
    "equal-distances": "all test trials are equally far from training trials of their concept",
    "few-shifts": "the {blocks} blocks have only {ways:.0f} shifts, too few for a p below .05",
    "few-concepts": "{concepts} concepts have too few permutations for a p below .05",
    "no-errors": "no test trial is misclassified",
    "mixed-order": "Concepts were presented in mixed order, so this is a change of the recording between runs, not a "
    "label that follows time.",
    "concepts-left-out": "{n} concepts with one block only are excluded.",
    "repeats": "{share:%} of the test trials show an image of the training set.",
    "codes-bound": "The test concepts are in the training set, so random codes are expected to perform as well.",
    "phases-bound": "These features hardly depend on phases, so random phases are expected to perform as well.",
    "hardest-arm": "Compared with the null arms {arms}; the strongest is {arm}.",
    "semantic-errors": "Errors {to} to semantic neighbours (r {r:.2f}, p {p:.2g}).",
    "controls": "{overall}",
}


def _result(numbers: Mapping[str, Any]) -> str:
    """The best result in words."""
    if "metric" not in numbers:
        return "none was tested"
    p = f"p {p_value(numbers['p'])}" if "p" in numbers else "not tested"
    if numbers.get("n_subjects", 1) > 1 and "n_above" in numbers:
        p += f"; {numbers['n_above']} of {numbers['n_subjects']} subjects are above chance by themselves"
        p += f" (p over subjects {p_value(numbers['p_subjects'])})"
    model, chance = numbers["model"], numbers["chance"]
    if numbers["metric"] != "two-way":
        return f"{numbers['metric']} {short(numbers['value'])} of {model}, chance {short(chance)}, {p}"
    limits = (
        f"95 % interval {100 * numbers['low']:.0f}–{percent(numbers['high'])}" if "low" in numbers else "no interval"
    )
    place, gap = numbers.get("place") or 0, ""
    if place > 0:
        ends = [f"{100 * numbers['place_low']:.0f}–{percent(numbers['place_high'])}"] if "place_low" in numbers else []
        closes = " ".join([percent(place), *(f"({end})" for end in ends)])
        gap = f"; this closes {closes} of the gap between shuffled EEG and the true caption"
    images = model if model == MADE_ELSEWHERE else f"images made from EEG by {model}"
    scored = f"identify the seen image in {percent(numbers['value'])} of pairs (chance {percent(chance)}"
    return f"{images} {scored}, {limits}, {p}){gap}"


def _missing(numbers: Mapping[str, Any]) -> str:
    """What a table, a run or images from another source do not state."""
    names = ("the column order or block", "the column stimulus, image or sha256", "the training trials (rows with "
             "split = train)")  # fmt: skip
    if numbers["elsewhere"]:
        names = ("the columns concept and order or block of the pairing table", "the seen images", "the training "
                 "trials of the model that made the images")  # fmt: skip
    lacking = [name for name, key in zip(names, ("order", "images", "training"), strict=True) if numbers[key]]
    return " and ".join([", ".join(lacking[:-1]), lacking[-1]] if len(lacking) > 1 else lacking)


def _stale(numbers: Mapping[str, Any]) -> str:
    """Which files belong to another split than run.toml says, and which verbs to run."""
    files = f"{numbers['file']} and {numbers['more']} more were" if numbers["more"] else f"{numbers['file']} was"
    if numbers["stage"] == "classify":
        return f"{files} made from other trials than those in the run folder's split; run `neurocanvas classify` again"
    verbs = ", ".join(f"`neurocanvas {verb}`" for verb in ("train", "predict", "generate", "evaluate"))
    return f"{files} trained on another split than that of the run folder; run {verbs} again"


def _controls(numbers: Mapping[str, Any]) -> str:
    """Whether controls asked for other explanations."""
    if "computed" not in numbers:
        return "Whether anything else explains it was not asked: controls were not run."
    if not numbers["flagged"]:
        return f"None of {numbers['computed']} controls is flagged."
    return f"{numbers['flagged']} of {numbers['computed']} controls are flagged: see them for what else may explain it."


def _checked(numbers: Mapping[str, Any]) -> str:
    order = "whole blocks were held out" if numbers["design"] == "block" else "trials were in mixed order"
    images = ["no test image is in the training set"] * bool(numbers["compared"])
    return ", ".join([order, *images, f"model selection {SELECTED[numbers['selection']]}"])


def _overall(numbers: Mapping[str, Any]) -> str:
    """Sum up the controls; the sentence of the worst one stands before this."""
    missing = f" {numbers['missing']} are not testable." if numbers["missing"] else ""
    if numbers.get("expected"):
        missing = f" As expected here, so are {numbers['expected']}.{missing}"
    if not numbers["computed"]:
        return "No control could be computed."
    if not numbers["fired"]:
        return f"No control is flagged ({numbers['computed']} computed).{missing}"
    flagged, loose = numbers["fired"].split(", "), numbers["loose"].split(", ") if numbers["loose"] else []
    counted = f"{len(flagged)} of {numbers['computed']} controls are flagged ({numbers['fired']})."
    if len(loose) == len(flagged):
        return f"{counted} None of them survives Holm's correction for their number.{missing}"
    return counted + (f" Without Holm's correction only: {numbers['loose']}." if loose else "") + missing


# Field in `SENTENCES` -> the phrase that the numbers of a finding make.
DERIVED: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "result": _result, "missing": _missing, "stale": _stale, "checked": _checked, "controls": _controls,
    "overall": _overall,
    "presented": lambda numbers: "concepts were presented in blocks" if numbers["design"] == "block"
    else "blocks differ in their concepts",
    "risks": lambda numbers: " and ".join(
        ["block effects"] * bool(numbers["order"] or numbers["training"])
        + ["repeated images"] * bool(numbers["images"] or numbers["training"])
    ),
    "ask": lambda numbers: "ask the authors of the images" if numbers["elsewhere"]
    else "add the training trials (rows with split = train)",
    "what": lambda numbers: "concepts" if numbers["metric"] == "accuracy" else "images",
    "drops": lambda numbers: f"; {numbers['dropped']}" if numbers.get("dropped") else "",
    "by": lambda numbers: f" of {numbers['model']}" if "model" in numbers else "",
    "lacks": lambda numbers: SCOPE[numbers["column"]][0],
    "carries": lambda numbers: SCOPE[numbers["column"]][1],
    "others": lambda numbers: f"; the {numbers['alone']} rule does not" if numbers["alone"] else "",
    "to": lambda numbers: "go" if numbers["p"] <= SIGNIFICANT else "do not go significantly more often",
}  # fmt: skip


def sentence(record: Finding | Mapping[str, Any]) -> str:
    """The sentence of a finding, or of its record in a JSON file."""
    found, phrases = record if isinstance(record, Finding) else read_findings([record])[0], []
    for literal, name, form, _ in Formatter().parse(SENTENCES[found.code]):
        phrases.append(literal)
        if name is not None:
            value: Any = DERIVED[name](found.numbers) if name in DERIVED else found.numbers[name]
            phrases.append(
                percent(value) if form == "%" else short(value) if form == "3" else format(value, form or "")
            )
    return "".join(phrases)


def warned(rows: Sequence[Mapping[str, Any]]) -> list[Note]:
    """Findings of a JSON file as notes."""
    return [("Note" if row["severity"] == "info" else "Warning", sentence(row)) for row in rows]


def verdict(audit: Mapping[str, Any]) -> str:
    """One line per verdict, the gravest first, with its cases where there are several."""
    cases_of: dict[str, list[Mapping[str, Any]]] = {}
    for case in sorted(audit["cases"], key=lambda case: [*CODES].index(case["verdict"]["code"])):
        cases_of.setdefault(case["verdict"]["code"], []).append(case)
    if len(cases_of) < 2:
        return sentence(audit["verdict"])
    lines = []
    for cases in cases_of.values():
        others = f" and {len(cases) - 1} more" if len(cases) > 1 else ""
        lines.append(f"{sentence(cases[0]['verdict']).removesuffix('.')} ({cases[0]['name']}{others}).")
    return "\n".join(lines)


def control_sentence(row: Mapping[str, Any]) -> str:
    """The outcome of a control, in the words of its row of `CONTROLS`."""
    from neurocanvas.audit.controls.base import LARGE_SHARE
    from neurocanvas.audit.controls.registry import CONTROLS

    control, subjects, share = CONTROLS[row["control"]], row["subjects"], row.get("share")
    reasons = "; ".join(
        sentence(reason) if subjects is None or reason["subjects"] == subjects["of"]
        else f"in {reason['subjects']} of {subjects['of']} subjects {sentence(reason)}"
        for reason in row["reasons"]
    )  # fmt: skip
    if row["fired"] is None:
        return f"not testable: {reasons}"
    some = "an unknown part" if share is None else "most" if share >= LARGE_SHARE else "part"
    outcome = control.fires.format(some=some) if row["fired"] else control.silent
    measured = ""
    if row.get("effect") is not None:
        limits = "no interval" if row["low"] is None else f"95 % interval {row['low']:.3f} to {row['high']:.3f}"
        measured = f" ({control.effect} {row['effect']:.3f}, {limits})"
    counted = ""
    if subjects:
        counted = f"; flagged in {subjects['fired']} of {subjects['computed']} subjects (more than half of them, and "
        counted += "Fisher's p at most .05, flag it overall)"
    expected = ", which is expected here" if outcome_of(row) == EXPECTED else ""
    return f"{outcome}{measured}{expected}{counted}" + (f"; {reasons}" if reasons else "")


def controls_verdict(report: Mapping[str, Any]) -> str:
    """Sum up the controls: serious reasons first, then the worst one that survives correction."""
    reasons = []
    for row in report["rows"]:
        serious = [reason for reason in row["reasons"] if reason["severity"] == "serious"]
        text = control_sentence({**row, "fired": None, "reasons": serious}).removeprefix("not testable: ")
        reasons += [f"{capitalised(text)}."] if serious else []
    worst = [row for row in report["rows"] if row["control"] == report["overall"]["numbers"].get("worst")]
    outcomes = [f"{capitalised(control_sentence(row))}." for row in worst]
    return " ".join([*dict.fromkeys(reasons), *outcomes, sentence(report["overall"])])


def shown(verb: str, scores: Mapping[str, Any]) -> tuple[list[Table], list[Note]]:
    """Tables and sentences that the command line prints of a verb's scores."""
    if verb == "embed":
        return [], warned(scores["findings"])
    if verb == "train":
        return [(scores["title"], scores["header"], scores["lines"])], warned(scores["findings"])
    if verb in ("classify", "benchmark"):
        tables = [(table["title"], table["header"], table["lines"]) for table in scores["tables"]]
        once = dict.fromkeys(note for table in scores["tables"] for note in warned(table["findings"]))
        return tables, [*once, scores["explanation"]]
    lines, notes = [], list[Note]()
    if verb == "controls":
        header = ["control", "", "effect", "low", "high", "p", "Holm", "outcome"]
        for row in scores["rows"]:
            columns = ("effect", "low", "high", "p", "p_holm")
            numbers = [
                "–" if row[column] is None else p_value(row[column]) if column in ("p", "p_holm")
                else f"{row[column]:.3f}" for column in columns
            ]  # fmt: skip
            text = " ".join([f"{control_sentence(row)}.", *map(sentence, row["notes"])])
            lines.append([row["control"], outcome_of(row), *numbers, text])
        notes = [
            "The decoder is a shrinkage LDA on the features of single trials, with the split of the settings.",
            ("Controls", controls_verdict(scores)),
        ]
        return [(f"Controls, {scores['protocol']}", header, lines)], notes
    arms = scores["arms"]
    first = next(iter(arms))
    title = (
        f"{scores['n_trials']} test trials of {scores['n_pictures']} images; "
        f"95 % intervals over {scores['unit']}, p of {first} from permuting {scores['exchanged']}"
    )
    for metric, score in arms[first].items():
        keys = ("value", "low", "high")
        cells = [" ".join(short(arm[metric][key], 2) for key in keys if arm[metric][key] is not None)
                 for arm in arms.values()]  # fmt: skip
        p = "–" if score["p"] is None else p_value(score["p"])
        judged = metric.partition("@")[0] in JUDGED and "judge" in scores
        name = f"{metric} (judge: {scores['judge']['name']})" if judged else metric
        lines.append([name, *cells, short(score["chance"], 2), p])
    for rule, score in scores.get("retrieval", {}).items():
        if not score["transductive"] or score.get("rule") == "greedy":  # summary.json has the others
            how = f"cosine with {score['space']}" if "space" in score else rule
            how += ", both sides centred with all test trials" if score["transductive"] else ""
            notes.append(
                f"Retrieval of the seen image among {score['n_pictures']:g} candidates ({how}): top-1 "
                f"{percent(score['top1'], 1)} (chance {percent(score['chance1'], 1)}), top-5 "
                f"{percent(score['top5'], 1)} ({percent(score['chance5'], 1)}), median rank {score['median_rank']:g}."
            )
    if scores.get("not_computed"):
        metrics = ", ".join(scores["not_computed"])
        notes.append(f"Not computed, because their weights are not available: {metrics}.")
    return [(title, ["score", *arms, "chance", "p"], lines)], [*notes, *warned(scores["findings"])]


def decodability(measured: Mapping[str, Any]) -> list[str]:
    """Sentences on how much of the image can be read from one simulated trial, and how strong the response is."""
    if "time_course" in measured:
        entropy, course = measured["differential_entropy"], measured["time_course"]
        lines = [
            f"Response {measured['response']}. Ridge on one trial ({measured['n_trials']} trials of subject 0, images "
            f"left out): differential entropy explains {short(entropy['concept_r2'], 2)} of the variance of the "
            f"concept code, two-way {short(entropy['two_way'], 2)}; the time course {short(course['concept_r2'], 2)}, "
            f"two-way {short(course['two_way'], 2)} (chance .50)."
        ]
    else:
        lines = [f"Decodability was not measured: {measured['n_images']} images, 10 are needed."]
    if measured["design"] == "block":
        lines.append("Concepts came in blocks, so drift counts as well.")
    if measured["reached"] < 0.95 * measured["explained_variance"]:
        lines.append(
            f"Images explain {short(measured['reached'], 2)} of the variance, not {measured['explained_variance']:g}: "
            "a stronger response would not have the amplitude of EEG."
        )
    return lines


# The four outcomes of a control. One is expected where it had to be flagged whatever the confound.
FLAGGED, NOT_FLAGGED, EXPECTED, NOT_TESTABLE = "flagged", "not flagged", "expected here", "not testable"


def outcome_of(row: Mapping[str, Any]) -> str:
    """The outcome of a control in words."""
    if row["fired"] is None:
        return NOT_TESTABLE
    return NOT_FLAGGED if not row["fired"] else EXPECTED if row.get("bound") else FLAGGED


def audited(audit: Mapping[str, Any]) -> tuple[list[Table], list[Note]]:
    """Tables and sentences that the command line prints of an audit after its verdict."""
    cases = audit["cases"]
    lines = [
        [
            case["name"], score["model"], score["metric"], short(score["value"]),
            "–" if score["low"] is None else f"{short(score['low'])} {short(score['high'])}", short(score["chance"]),
            "–" if score["p"] is None else p_value(score["p"]),
            "–" if score["needed"] is None else f"{score['needed']} of {score['n']}",
            "–" if score["majority"] is None else percent(score["majority"]),
            score["selection"] + (", transductive" if score["transductive"] else ""),
        ]
        for case in cases for score in case["results"]
    ]  # fmt: skip
    header = ["tested", "model", "score", "value", "95 %", "chance", "p", "significant from", "largest class",
              "selected on"]  # fmt: skip
    tables: list[Table] = [(f"Audit of {audit['source']}", header, lines)] if lines else []
    tables += matrix_tables(audit)
    for case in cases[:FEW_CASES]:
        compared = {row["pair"] for row in case["overlaps"]} - {"known/test"}
        pairs = [pair for pair in PAIRS if pair in compared]
        cells = {(row["column"], row["pair"]): f"{row['shared']} of {row['values']}" for row in case["overlaps"]}
        for pair in pairs:
            cells["trials", pair] = "/".join(str(case["trials"].get(name, 0)) for name in pair.split("/"))
            for column in SHARED:  # a dash where nothing can be shared: blocks in mixed order, sessions of a gallery
                no_values = (column == "block" and case["design"] == "mixed") or (
                    pair.endswith("gallery") and column not in OF_PICTURES
                )
                cells.setdefault((column, pair), "–" if no_values else "unknown")
        rows = [[column, *(cells[column, pair] for pair in pairs)] for column in ("trials", *SHARED)]
        title = f"{case['name']}: {DESIGNS[case['design']]}; overlap between sets"
        tables += [(title, ["in both sets", *pairs], rows)] if pairs else []
        tables += subjects_table(case)
    notes: list[Note] = []
    if "paired" in audit:
        tables += paired_tables(audit)
        notes = ["Ratios are leaky / clean; chance is not subtracted.", *warned(audit["findings"])]
        notes.append((f"{audit['leaky']['source']} (leaky)", verdict(audit["leaky"])))
    for title, kind in (("Supported", "can"), ("Not supported", "cannot")):
        names: dict[str, list[str]] = {}  # every sentence once, with its cases
        for case in cases:
            for text in map(sentence, case[kind]):
                names.setdefault(text, []).append(case["name"])
        for text, holds_for in names.items():
            more = f" and {len(holds_for) - FEW_CASES} more" if len(holds_for) > FEW_CASES else ""
            some = f"{title} ({'; '.join(holds_for[:FEW_CASES])}{more})"
            notes.append((some if len(holds_for) < len(cases) else title, text))
    notes += [("Errors", errors_sentence(case, score)) for case in cases for score in case["results"]
              if score.get("neighbours") or score.get("group")]  # fmt: skip
    return tables, [*notes, *dict.fromkeys(note for case in cases for note in warned(case["findings"]))]


# Rule of a matrix -> its name in the table.
RULES = {
    "greedy": "greedy (largest score of the row)",
    "csls": "column-normalised (CSLS), transductive",
    "hungarian": "one to one (Hungarian), transductive",
}


def matrix_tables(audit: Mapping[str, Any]) -> list[Table]:
    """Retrieval of a matrix by every rule, and chance."""
    if not (facts := audit.get("matrix")):
        return []
    lines = [[RULES[rule], *(short(row.get(key)) for key in ("top1", "top5"))] for rule, row in facts["rules"].items()]
    lines.append(["chance", *(short(facts.get(key)) for key in ("chance1", "chance5"))])
    if "concepts" in facts:
        lines += [[f"concept, {key}", short(value), "–"] for key, value in facts["concepts"].items()]
    title = f"Retrieval: {facts['n']} rows ({facts['n_units']} names), gallery of {facts['gallery']}"
    return [(title, ["rule", "top-1", "top-5"], lines)]


def paired_tables(audit: Mapping[str, Any]) -> list[Table]:
    """Clean and leaky scores of the same subjects, per model and per subject."""
    lines, single, keys = [], [], ("clean", "leaky", "margin", "ratio")
    for row in audit["paired"]:
        model = " ".join(filter(None, [row["part"], row["model"]]))
        least = "" if row["least_p"] is None else f" (smallest {p_value(row['least_p'])})"
        numbers = [percent(row["share"]), p_value(row["p"]) + least, p_value(row["p_holm"]), short(row["r"])]
        lines.append([model, row["metric"], str(row["n"]), *(short(row[key]) for key in keys), *numbers])
        single += [
            [model, row["metric"], one["subject"], *(short(one[key]) for key in keys)] for one in row["subjects"]
        ]
    title = f"{audit['source']} (clean) and {audit['leaky']['source']} (leaky)"
    header = ["model", "score", "subjects", *keys, "inflated", "Wilcoxon p", "Holm", "r"]
    return [(title, header, lines), (f"{title}: every subject", ["model", "score", "subject", *keys], single)]


def subjects_table(case: Mapping[str, Any]) -> list[Table]:
    """The score of every model in every subject, where there are several subjects."""
    results = [result for result in case["results"] if result.get("subjects")]
    names = unique_names(row["subject"] for result in results for row in result["subjects"])
    cells = {(row["subject"], place): f"{short(row['value'])} ({row['n']})" for place, result in enumerate(results)
             for row in result["subjects"]}  # fmt: skip
    lines = [[name, *(cells.get((name, place), "–") for place in range(len(results)))] for name in names]
    header = ["subject", *(f"{result['model']}, {result['metric']}" for result in results)]
    return [(f"{case['name']}: every subject (trials)", header, lines)] if len(names) > 1 else []


def errors_sentence(case: Mapping[str, Any], score: Mapping[str, Any]) -> str:
    """Where the wrong answers of a model go, beside what is expected of answers without any link."""
    where, parts = {"neighbours": "name the concept of an adjacent block", "group": "stay in the semantic group"}, []
    for key in where:
        if errors := score.get(key):
            numbers = f"{percent(errors['expected'])} expected, p {p_value(errors['p'])}"
            parts.append(f"{percent(errors['share'])} of {errors['errors']} {where[key]} ({numbers})")
    return f"of {score['model']} ({case['name']}): {'; '.join(parts)}."


def classification_sentence(rows: Sequence[Mapping[str, Any]]) -> str:
    """Sum up one protocol's rows of the benchmark."""
    best = max((row for row in rows if row["granularity"] == rows[0]["granularity"]), key=lambda row: row["mean"])
    title, share, chance = best["title"].rstrip("*"), percent(best["mean"], 1), percent(best["chance"], 1)
    scored = f"{title} predicts the concept of {share} of the trials (chance {chance})"
    if any(finding["code"] in OF_BLOCKS for row in rows for finding in row["findings"]):
        return f"{scored}, on a split whose accuracy is confounded with recording block."
    corrected = f"p {p_value(best['p_holm'])} after correction for all tests"
    above = "" if best["p_holm"] < SIGNIFICANT else "No model is above chance: "
    return f"{above}{scored}, {corrected}."


def definitions(
    settings: RunSettings,
    summary: Mapping[str, Any],
    trials: Sequence[Mapping[str, str]],
    ch_names: Sequence[str],
    model: Mapping[str, Any],
) -> list[tuple[str, str]]:
    """Settings and sizes of a run; `model` is the first decoder that made the images."""
    drawn, encoder, features, fitted = settings.generate, settings.encoder, settings.features, model["settings"]
    data: str = settings.data.name
    if settings.simulate is not None:
        data = f"simulated EEG, {settings.simulate.design} design, in the layout of EEG-ImageNet"
    granularity = f"; granularity {settings.data.granularity}" if settings.data.name == "eeg-imagenet" else ""
    hidden = fitted.get("encoder__hidden")
    layers = f", hidden layers {' · '.join(map(str, hidden))}" if hidden else ""
    seeds = [] if settings.simulate is None else [f"simulation {settings.simulate.seed}"]
    seeds += [f"split {settings.split.seed}", f"encoder {fitted.get('seed', encoder.seed)}", f"images {drawn.seed}"]
    tested = "images, repetitions averaged" if settings.split.average_test else "trials"
    pictures = len({row["image"] for row in trials})
    return [
        ("Data", data + granularity),
        ("Subjects", f"{len(summary['subjects'])}"),
        ("Trials", f"{len(trials):,} of {pictures:,} images, {len(summary['concepts'])} concepts tested"),
        ("Electrodes", ", ".join(ch_names) if len(ch_names) <= 8 else f"{len(ch_names)}"),
        ("Features", f"differential entropy ({features.method}), {features.tmin:g} to {features.tmax:g} s after onset"),
        ("Split", f"{settings.split.protocol}; tested on {summary['n_trials']:,} {tested}"),
        ("Encoder", f"{model['name']}{layers}, {fitted.get('n_components', encoder.components)} components"),
        ("Objective", _objective(fitted)),
        ("Outputs", "retrieval and two-way among targets: the encoder's own; images: " + _conditions(fitted)),
        ("Networks", f"captions {settings.family}, images {drawn.family}, judge {settings.evaluate.judge}"),
        ("Diffusion", f"{drawn.scheduler}, {drawn.steps} steps, guidance {drawn.guidance:g}, scale {drawn.scale}"),
        ("Statistics", f"{settings.evaluate.permutations:,} permutations, {settings.evaluate.resamples:,} resamples"),
        ("Seeds", ", ".join([*seeds, f"scores {settings.evaluate.seed}"])),
    ]  # fmt: skip


def _objective(fitted: Mapping[str, Any]) -> str:
    """What an encoder of embeddings minimised, from the settings in its sidecar."""
    if "mse" not in fitted:
        return "squared error, solved in closed form"
    if fitted.get("recipe") == "released":
        return "mean squared error alone (recipe released)"
    words = {"mse": "squared error", "cosine": "cosine error", "contrastive": "contrastive error"}
    return " + ".join(f"{fitted[name]:g} x {words[name]}" for name in words if fitted.get(name))


def _conditions(fitted: Mapping[str, Any]) -> str:
    """Which output of an encoder became images."""
    if "mse" not in fitted or fitted.get("recipe") == "released" or not fitted.get("contrastive"):
        return "the same"
    if fitted.get("conditions") == "output":
        return "the same, matched to mean and scale of the training targets"
    return "posterior mean over the training targets"


def metric_words(
    summary: Mapping[str, Any], metric: str, n_way: int | str, *, numbered: bool = False
) -> tuple[str, str, bool]:
    """Title and meaning of a metric, from `METRICS` or summary.json, and whether it is a share."""
    row, known = summary.get("metrics", {}).get(metric, {}), METRICS.get(metric)
    share = row.get("unit", known.unit if known else "") == SHARE
    if known and known.meaning:
        title = "{n}-way identification" if metric == "n_way" else known.title[:1].upper() + known.title[1:]
        if metric in JUDGED and "judge" in summary:
            title += f" (judge: {summary['judge']['name']})"
        return title.format(n=n_way), known.meaning.format(n=n_way), share
    chance = str(row.get("chance") or "")
    if numbered and chance.replace(".", "", 1).isdigit():  # it has a column of its own
        chance = ""
    parts = [
        "lower is better" if row.get("direction") == "lower" else "higher is better",
        f"chance: {chance}" if chance else "",
        f"as in {row['variant']}" if row.get("variant") else "",
        str(row.get("reference", "")),
    ]
    return row.get("title", known.title if known else metric), "; ".join(part for part in parts if part), share


def ranking_arm(arms: Sequence[str]) -> str:
    """The arm whose images rank the trials: the first that uses the EEG."""
    return next((arm for arm in arms if arm not in ARMS or ARMS[arm].informed), arms[0])


def number(value: float, share: bool, *, unit: bool = True, digits: int = 1) -> str:
    """A score, as a percentage if it is a share; a dash if it is unknown."""
    if not math.isfinite(value):
        return "–"
    text = f"{round(100 * value, digits) + 0.0:.{digits}f}" + ("\N{NO-BREAK SPACE}%" if unit else "")  # no −0.0
    plain = f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
    return (text if share else plain).replace("-", "−")


def interval(score: Mapping[str, Any], share: bool) -> str:
    """The interval of a score."""
    low, high = score.get("low"), score.get("high")
    if low is None or high is None:
        return "–"
    return f"{number(low, share, unit=False)} – {number(high, share, unit=False)}"


def p_value(p: float) -> str:
    """A p-value with two significant digits, or a bound below .0001."""
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
