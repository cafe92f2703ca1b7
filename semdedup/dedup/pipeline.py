"""The pipeline that a user chains of stages."""

from __future__ import annotations

import distributed

from semdedup.compute.options import ClusterOptions
from semdedup.dedup.stage import Stage, StageResult, describe_stages, run_stages
from semdedup.errors import ParameterError


class Pipeline:
    """Stages one after the other; a stage without `input_path` reads what the stage before it wrote.

    Example:
        >>> pipeline = Pipeline(name="dedup", description="k-means, then comparison")
        >>> pipeline.add_stage(KMeansStage(input_path="emb/", output_path="out/kmeans"))
        >>> pipeline.add_stage(PairwiseStage(output_path="out/pairwise"))
        >>> pipeline.run()
    """

    def __init__(self, name: str = "", description: str = "") -> None:
        self.name = name
        self.description = description
        self.stages: list[Stage] = []

    def add_stage(self, stage: Stage) -> Pipeline:
        """Append a stage; returns the pipeline, so that calls chain."""
        if not isinstance(stage, Stage):
            raise ParameterError(f"add_stage takes a stage; got {type(stage).__name__}")
        self.stages.append(stage)
        return self

    def __repr__(self) -> str:
        stages = "".join(f"\n    {stage!r}," for stage in self.stages)
        return f"{type(self).__name__}({self.name!r}, stages: [{stages}" + "\n" * bool(stages) + "])"

    def run(
        self, client: distributed.Client | str | None = None, *, cluster: ClusterOptions | None = None
    ) -> list[StageResult]:
        """Run the stages on a client, a scheduler address, the current default client, or a cluster of their own.

        Parameters, paths and conflicts with earlier results are checked before a cluster is started or used.

        Returns:
            One `StageResult` for each stage.
        """
        return run_stages(self._some_stages(), client, cluster=cluster)

    def describe(self) -> list[str]:
        """What `run` would do, in lines of text. Everything that can be checked is checked; nothing is written."""
        return describe_stages(self._some_stages())

    def _some_stages(self) -> list[Stage]:
        if not self.stages:
            raise ParameterError("the pipeline has no stages; add some with add_stage")
        return self.stages
