"""What the command line prints of a run's figures."""

from typing import Any

TITLES = {
    "balanced_accuracy": "bal. accuracy",
    "auroc_macro": "macro AUROC",
    "c_index": "c-index",
    "mae": "mean abs. error",
    "r2": "R²",
    "spearman": "Spearman's ρ",
}
"""Of the figures that are printed."""


def print_headline(metrics: dict[str, Any]) -> None:
    """Print the headline figures of ``metrics.json``, each with its interval; of several targets one by one."""
    for name, own in metrics.get("targets", {}).items():
        print(f"target          {name}")
        print_headline(own)
    if "warning" in metrics:
        print(f"warning         {metrics['warning']}")
    if "targets" in metrics:
        _print_tuning(metrics)
        return
    print(f"patients        {metrics['n_patients']}, each tested by models that never saw them")
    chance = {"auroc_macro": "; chance 0.50", "c_index": "; chance 0.50"}
    if "per_class" in metrics:
        chance["balanced_accuracy"] = f"; chance {1 / len(metrics['per_class']):.2f}"
    for key in (key for key in TITLES if key in metrics):
        figure, level = metrics[key], metrics["level"]
        interval = f"{100 * level:g}% CI {_number(figure['ci_low'])} to {_number(figure['ci_high'])}"
        print(f"{TITLES[key]:<15} {_number(figure['estimate'])} ({interval}){chance.get(key, '')}")
    _print_tuning(metrics)


def _print_tuning(metrics: dict[str, Any]) -> None:
    if "tuning" in metrics:
        from milkit.mil.tuning import sentence

        print(f"tuning          {sentence(metrics['tuning'])}")


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2f}"
