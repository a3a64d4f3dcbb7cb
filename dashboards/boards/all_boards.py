"""The list of boards: a new one stands here, too."""

from dashboards.boards import findings, mesh, overview, pair, pipeline, round_report, targets, trends
from dashboards.parts import Board

BOARDS: tuple[Board, ...] = (
    overview.BOARD,
    mesh.BOARD,
    pair.BOARD,
    round_report.BOARD,
    findings.BOARD,
    trends.BOARD,
    targets.DNS,
    targets.HTTP,
    pipeline.BOARD,
)
