"""The sections of a model card, and where a run fills them.

Mitchell, Wu, Zaldivar et al. 2019, Model cards for model reporting. Proceedings of the Conference on Fairness,
Accountability, and Transparency: 220-229, figure 1 (arXiv 1810.03993).
"""

from milkit.guidelines import facts_data as data
from milkit.guidelines import facts_model as model
from milkit.guidelines import facts_results as results
from milkit.guidelines.items import Item
from milkit.guidelines.sentences import Sentence, told
from milkit.guidelines.study import Study

TITLE = "Model card"
CITATION = (
    "Mitchell M, Wu S, Zaldivar A, et al. Model cards for model reporting. FAT* 2019: 220-229 (arXiv 1810.03993)."
)


def _limits(_: Study) -> list[Sentence]:
    return [
        *told("For research only. This is not a medical device, and no decision about a patient may rest on it."),
        *told(
            "Results are of internal validation: they say nothing of another hospital's patients, stain or microscope."
        ),
        *told(
            "Cells shown first are those that the model weighs most; that says nothing of why a patient has a disease."
        ),
    ]


ITEMS = (
    Item("", "Model details", "Encoder", (model.encoder, model.precision)),
    Item("", "Model details", "Licence of the encoder", (model.encoder_licence,), otherwise="encoder_licence"),
    Item("", "Model details", "Head and training", (model.head, model.training, model.selection, model.seeds)),
    Item("", "Model details", "Files and digests", (model.heads_files, model.digests, model.software)),
    Item("", "Model details", "Who made it, and whom to ask", asks=("owners", "model_availability")),
    Item("", "Intended use", "Uses and users", asks=("intended_use",)),
    Item("", "Intended use", "What it is not for", (_limits,)),
    Item(
        "",
        "Factors",
        "Groups, instruments and surroundings",
        (data.characteristics, data.lacking_characteristics),
        ("acquisition", "fairness"),
    ),
    Item(
        "",
        "Metrics",
        "Measures and thresholds",
        (results.measures, results.intervals, results.decisions),
        ("thresholds",),
    ),
    Item("", "Evaluation data", "Who was tested", (data.cohort, data.flow, model.partitions)),
    Item("", "Training data", "Whom it learned from", (data.outcomes, model.imbalance, data.overlap), ("data_source",)),
    Item(
        "",
        "Quantitative analyses",
        "Results",
        (results.performance, results.per_class, results.calibration, results.controls),
        otherwise="subgroups",
    ),
    Item(
        "",
        "Quantitative analyses",
        "Cells that the model weighs most",
        (results.faithfulness,),
        otherwise="explainability",
    ),
    Item("", "Ethical considerations", "What a wrong prediction could do", asks=("ethical_considerations",)),
    Item("", "Caveats and recommendations", "Limits", (data.notes, data.unreadable), ("limitations", "input_quality")),
)
"""All sections, in order."""
