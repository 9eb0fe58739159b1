"""`witness run` takes in images that were made elsewhere, evaluates them, and computes nothing else again."""

import json
from pathlib import Path

import pytest
import torch
from digits_experiment import Finished, read_table

from pipelines import AdversarialImages
from pipelines.cli import main


def test_exported_images_come_back_with_the_same_outcomes(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request, folder = finished.copied(tmp_path / "runs", "report")
    command = [str(finished.file), "--output", str(request.output)]
    form = ["--png", str(tmp_path / "png"), "--surrogate", "aligned", "--attack", "pgd"]
    assert main(["export", *command, *form]) == 0
    theirs = f"attacks.theirs={{images: {tmp_path / 'png/aligned/pgd'}, eps: 12/255, compare_with: pgd}}"
    capsys.readouterr()
    assert main(["run", *command, "--set", theirs, "--json"]) == 0
    printed = capsys.readouterr()
    chunks, targets = 3, ("cnn_c", "mlp")
    made = json.loads(printed.out)["made"]
    assert made == {"align": 0, "craft": chunks, "evaluate": chunks * len(targets), "report": 1}
    assert "take in: 60 images" in printed.err
    for target in targets:
        ours, again = (read_table(folder / "outcomes" / own / target) for own in ("aligned/pgd", "external/theirs"))
        assert ours.equals(again)
    means = {(row["surrogate"], row["attack"]): row for row in json.loads(printed.out)["means"]}
    for figure in ("rate", "gain", "gain_low", "gain_high"):
        assert means["external", "theirs"][figure] == means["aligned", "pgd"][figure]
    assert main(["run", *command, "--set", theirs]) == 0
    printed = capsys.readouterr()
    assert "nothing to compute" in printed.err
    assert "mean over 2 targets of each surrogate" in printed.out
    rate, low, high = (means["external", "theirs"][name] for name in ("rate", "rate_low", "rate_high"))
    (verdict,) = (line for line in printed.out.splitlines() if line.startswith("external under theirs: "))
    assert " the source under the attack that it is compared with: " in verdict
    assert main(["run", *command, "--set", theirs.replace(", compare_with: pgd", "")]) == 0
    (alone,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("external under theirs: "))
    assert alone.startswith(
        f"external under theirs: transfers at {rate:.1f} % ({low:.1f} to {high:.1f}); `compare_with`"
    )


@pytest.mark.parametrize("target", ["cnn_c", "mlp"])
def test_any_pytorch_code_finds_the_same_outcomes(finished: Finished, target: str) -> None:
    """A target predicts on them what the table of outcomes holds, but where two classes are as likely."""
    images = AdversarialImages(finished.file, "aligned", "pgd")
    pixels_NCHW = torch.stack([pixels for pixels, _ in images])
    with torch.no_grad():
        logits_NK = finished.network(target).eval()(pixels_NCHW)
    stored = torch.tensor(read_table(finished.folder / f"outcomes/aligned/pgd/{target}")["adversarial_prediction"])
    lead_N = logits_NK.amax(dim=1) - logits_NK.gather(1, stored[:, None])[:, 0]
    assert float(lead_N.max()) < 1e-3
    assert (logits_NK.argmax(dim=1) == stored).float().mean() > 0.95
