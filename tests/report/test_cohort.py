"""The report of a set of cases holds every case, picture and note that it is given."""

import numpy as np

from liverjax.report.cohort import cohort_report


def test_report_holds_all_cases_pictures_and_curves(tmp_path):
    cases = [
        {"case": f"case_{i}", "region": region, "dice": np.nan if i == 2 else 0.9, "volume_ml": 1500.0 + i}
        for i in range(3)
        for region in ("liver", "tumor")
    ]
    path = cohort_report(
        tmp_path / "report.html",
        "Held-out scans",
        cases,
        summary=[{"region": "liver", "mean": 0.9}],
        curves={"axial": [{"step": 1, "loss": 1.0}]},
        pictures=[("worst: case_1", b"png"), ("best: case_0", b"png")],
        notes=["Trained on phantoms."],
    )
    text = path.read_text()
    assert text.count("<img ") == 4  # the distribution, two pictures, the curves
    assert text.count("<td>case_") == 6
    for expected in (
        "Held-out scans",
        "Trained on phantoms.",
        "worst: case_1",
        "best: case_0",
        "1502.0",
        "n/a",
    ):
        assert expected in text


def test_report_without_extras(tmp_path):
    path = cohort_report(tmp_path / "report.html", "t", [{"case": "a", "region": "liver", "dice": 1.0}])
    assert path.read_text().count("<img ") == 1
