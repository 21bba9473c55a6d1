"""`milkit pretrain`: its typed settings. The defaults are DinoBloom's recipe, as its code in effect ran it.

Source: Koch et al., arXiv:2404.05022, and the configuration that their code resolves to. Where a recipe in
``configs/encoders`` differs, it says why.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from encoders.dinov2.augmentation import MILD, Augmentation
from encoders.vit import PATCH, VIT_SHAPES, VitShape
from milkit.cohort import find_recipe
from milkit.registry import unknown_name
from milkit.settings import CohortRecipe, Settings

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Source(Settings):
    """A cohort that images are drawn from; ``acevedo`` is short for ``{cohort: acevedo}``."""

    cohort: CohortRecipe
    """A cohort's name, the path of its recipe, or a recipe written out."""
    weight: Positive | None = None
    """Its share of the images, relative to the others'; empty means its number of images, as the reference samples."""
    labels: bool | Path = True
    """Whether its cells' labels are used for supervision; a file in the form of ``configs/taxonomies/labels`` says what
    they mean, where the cohort's reader is not one of those listed there."""

    @model_validator(mode="before")
    @classmethod
    def _from_a_name(cls, values: Any) -> Any:
        values = {"cohort": values} if isinstance(values, str) else dict(values)
        if isinstance(values.get("cohort"), str):
            recipe = find_recipe(values["cohort"], values.pop("root", None))
            arguments = {**recipe.arguments, **(values.pop("arguments", None) or {})}
            values["cohort"] = recipe.model_copy(update={"arguments": arguments}).model_dump()
        return values


class Network(Settings):
    """The vision transformer; ``network: s`` is one of the published sizes."""

    dim: Count
    depth: Count
    heads: Count
    ffn: Literal["mlp", "swiglu"] = "mlp"
    image_size: Annotated[int, Field(ge=PATCH, multiple_of=PATCH)] = 224
    """Side of a crop in pixels, and of the images that the features are made of later."""
    layer_scale: Positive = 1e-5
    """Where LayerScale starts, if the network starts from scratch."""

    @model_validator(mode="before")
    @classmethod
    def _from_a_size(cls, values: Any) -> Any:
        given = {"size": values} if isinstance(values, str) else dict(values)
        size = given.pop("size", None)
        if size is None:
            return given
        if size not in VIT_SHAPES:
            msg = f"the size {size} is not one of {', '.join(VIT_SHAPES)}; or give dim, depth and heads"
            raise ValueError(msg)
        shape = VIT_SHAPES[size]
        return {"dim": shape.dim, "depth": shape.depth, "heads": shape.heads, "ffn": shape.ffn, **given}

    @model_validator(mode="after")
    def _heads_divide_the_features(self) -> Self:
        if self.dim % self.heads:
            msg = f"{self.heads} heads do not divide {self.dim} features"
            raise ValueError(msg)
        return self

    @property
    def shape(self) -> VitShape:
        """Its layout, with one position a patch of the crop and one for the class token."""
        return VitShape(self.dim, self.depth, self.heads, self.ffn, 1 + (self.image_size // PATCH) ** 2)


class Heads(Settings):
    """The projection heads of the class token and of the patches; each has its own."""

    prototypes: Count = 65_536
    hidden: Count = 2048
    bottleneck: Count = 256
    layers: Annotated[int, Field(ge=2)] = 3


class Schedule(Settings):
    """What changes with the iterations. Lengths are in iterations."""

    iterations: Count = 100_000
    """The horizon of all schedules; a run may stop earlier (``stop_after``), as the published ones did."""
    learning_rate: Positive = 2e-4
    """At its peak, for 1,024 images a step; that of another batch size is scaled by the square root of its share."""
    min_learning_rate: NotNegative = 1e-6
    warmup: Annotated[int, Field(ge=0)] = 10_000
    """Iterations in which the learning rate rises linearly from 0."""
    weight_decay: tuple[NotNegative, NotNegative] = (0.04, 0.2)
    """From and to, along a cosine."""
    momentum: tuple[Share, Share] = (0.994, 1.0)
    """Of the teacher, which is an exponential moving average of the student; from and to, along a cosine."""
    teacher_temperature: tuple[Positive, Positive] = (0.04, 0.07)
    teacher_warmup: Annotated[int, Field(ge=0)] = 15_000
    """Iterations in which the teacher's temperature rises linearly; constant thereafter."""
    freeze_last_layer: Annotated[int, Field(ge=0)] = 500
    """Iterations in which the prototypes do not learn."""


class Supervision(Settings):
    """Labels beside the images: the hierarchical cross entropy over a taxonomy of cell types."""

    taxonomy: str = "blood"
    head: Literal["leaf", "sibling"] = "leaf"
    alpha: NotNegative = 0.5
    """How fast the weight of a level falls with its depth; 0 is the plain cross entropy of the label."""
    scale: Literal["none", "path", "tree"] = "none"
    weight: NotNegative = 1.0
    """Of this loss beside those without labels."""
    batch_size: Count = 64
    """Labelled cells a step, over all processes; they are seen once, unmasked, and beside the other images."""
    balance: Share = 0.5
    """A label with n cells is drawn with weight n to this power: 1 as often as it occurs, 0 all labels alike."""
    augmentation: Augmentation = MILD


class PretrainSettings(Settings):
    """`milkit pretrain`: DINOv2 without local crops, as DinoBloom was trained, with labels where there are some."""

    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    validation: Source | None = None
    """Labelled cells that are looked at while training, to keep the best teacher; never those of the final test."""
    network: Network = Network.model_validate("s")
    weights: Path | None = None
    """A file of DinoBloom's or DINOv2's layout to start from; empty means from scratch."""
    heads: Heads = Heads()
    schedule: Schedule = Schedule()
    supervision: Supervision | None = None
    augmentation: Augmentation = Augmentation()
    interpolation: Literal["lanczos", "bicubic", "bilinear"] = "lanczos"
    """How an image becomes a square, before its crops are cut."""
    batch_size: Annotated[int, Field(ge=2)] = 1216
    """Images a step, over all processes."""
    stop_after: Count | None = None
    """Iterations after which the run ends; empty means the horizon of the schedules."""
    student_temperature: Positive = 0.1
    dino_weight: NotNegative = 1.0
    ibot_weight: NotNegative = 1.0
    koleo_weight: NotNegative = 0.1
    mask_probability: Share = 0.5
    """Share of the crops that have hidden patches."""
    mask_ratio: tuple[Share, Share] = (0.1, 0.5)
    """Least and largest share of the patches of such a crop that are hidden."""
    betas: tuple[Share, Share] = (0.9, 0.999)
    clip: Positive = 3.0
    """Largest norm of the gradients of the backbone, and of each head."""
    patch_embed_factor: NotNegative = 0.2
    """Of the learning rate, for the projection of the patches."""
    log_every: Count = 10
    evaluate_every: Count = 1000
    checkpoint_every: Count = 500
    validation_cells: Count = 2000
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the matrix products; ``auto`` is bf16 where the hardware computes in it."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Over several processes: each holds all parameters, or its share of them."""
    workers: Annotated[int, Field(ge=0)] | None = None
    """Processes that read images ahead; empty means one a core that is left, at most 12."""
    seed: Annotated[int, Field(ge=0)] = 0

    @field_validator("mask_ratio")
    @classmethod
    def _in_order(cls, ratio: tuple[float, float]) -> tuple[float, float]:
        if ratio[0] > ratio[1]:
            msg = "the least share of hidden patches is larger than the largest"
            raise ValueError(msg)
        return ratio

    def with_roots(self, roots: Mapping[str, Path]) -> Self:
        """The same with the folders of some cohorts, by the names of their recipes.

        Raises:
            UnknownName: A name is of no cohort of this training.
        """
        parts = [*self.sources, *([self.validation] if self.validation else [])]
        names = sorted({part.cohort.name for part in parts})
        for name in roots:
            if name not in names:
                raise unknown_name("cohort of this training", name, names)  # noqa: EM101

        def placed(source: Source) -> Source:
            root = roots.get(source.cohort.name, source.cohort.root)
            return source.model_copy(update={"cohort": source.cohort.model_copy(update={"root": root})})

        validation = placed(self.validation) if self.validation else None
        return self.model_copy(update={"sources": tuple(map(placed, self.sources)), "validation": validation})

    @property
    def stop(self) -> int:
        """The iteration at which the run ends."""
        return min(self.stop_after or self.schedule.iterations, self.schedule.iterations)

    @property
    def peak_learning_rate(self) -> float:
        """For this batch size."""
        return self.schedule.learning_rate * math.sqrt(self.batch_size / 1024)
