"""Weight files of other projects: told by their keys, mapped with equal outputs, refused by name where they do not fit."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gcl_fast.cli.main import main
from gcl_fast.config import TrainConfig, from_dict
from gcl_fast.models import Discriminator, Generator, IdentityEncoder
from gcl_fast.models.published import read_published, recognise
from gcl_fast.stages.checkpoint import load_checkpoint, save_checkpoint
from tests.test_convert import MakesFolder, Published, numbered, official_state, randn
from tests.toy_world import SETTINGS, write_toy_world

DOUBLE = torch.float64


def renamed(state: dict[str, Tensor], **prefixes: str) -> dict[str, Tensor]:
    """Entries with the beginning of their names replaced; a name is `a__b` for `a.b`."""
    table = {old.replace("__", "."): new for old, new in prefixes.items()}
    return {next((new + k[len(old) :] for old, new in table.items() if k.startswith(old)), k): v for k, v in state.items()}


def forms() -> dict[str, tuple]:
    """File contents as each project writes them -> (content, official state of equal outputs, its kind, words, left)."""
    jvtc, mlc, act = (official_state(k) for k in ("id_jvtc", "id_mlc", "id_act"))
    bare = {k.removeprefix("base."): v for k, v in mlc.items()}
    classifier = {"classifier.weight": torch.ones(7, 512), "classifier.bias": torch.ones(7)}
    fast = {("heads.bottleneck.0" + k[2:] if k.startswith("bn.") else f"backbone.{k}"): v for k, v in bare.items()}
    return {
        "authors' id": ({"id": jvtc}, jvtc, "id_jvtc", "JVTC", []),
        "jvtc": (
            {f"module.{k}": v for k, v in (jvtc | classifier).items()},
            jvtc,
            "id_jvtc",
            "JVTC",
            ["classifier.weight", "classifier.bias"],
        ),
        "mlc": (mlc, mlc, "id_mlc", "MLC", []),
        "act": ({"state_dict": {f"module.{k}": v for k, v in act.items()}, "epoch": 3}, act, "id_act", "ACT", []),
        "cluster-contrast": (
            {"state_dict": {numbered(k): v for k, v in act.items()}, "best_mAP": 0.8},
            act,
            "id_act",
            "contrast",
            [],
        ),
        "bag of tricks": (renamed(mlc, bn__="bottleneck."), mlc, "id_mlc", "bag-of-tricks", []),
        "fast-reid": (
            {"model": fast | {"heads.weight": torch.ones(3, 2), "pixel_mean": torch.ones(1, 3, 1, 1)}, "iteration": 9},
            mlc,
            "id_mlc",
            "fast-reid",
            ["heads.weight", "pixel_mean"],
        ),
    }


@pytest.mark.parametrize("name", sorted(forms()))
def test_an_encoder_is_told_by_its_keys_and_gives_equal_outputs(name: str) -> None:
    content, state, kind, words, left = forms()[name]
    (part,) = recognise(content)
    assert part.module == "encoder" and words in part.what and part.left == left and not part.missing
    assert all(name in part.report() for name in left)
    ours = IdentityEncoder(part.variant).to(DOUBLE).eval()
    ours.load_state_dict(part.state)
    image = randn(1, 3, 64, 32)
    with torch.no_grad():
        for a, b in zip(ours(image), Published(state, torch.device("cpu")).identity(image, kind), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_linear_heads_of_other_projects_map_onto_jvtcs() -> None:
    jvtc = official_state("id_jvtc")
    backbone = {k: v for k, v in jvtc.items() if not k.startswith("feat")}
    torchreid = renamed(jvtc, feat__="fc.0.", feat_bn__="fc.1.")
    (part,) = recognise(torchreid)
    assert part.variant == "jvtc" and "ReLU" in part.report()
    assert part.state["feat.weight"] is jvtc["feat.weight"] and part.state["bn.running_var"] is jvtc["feat_bn.running_var"]
    fast = {f"backbone.{k}": v for k, v in backbone.items()} | {
        "heads.bottleneck.0.weight": jvtc["feat.weight"][:, :, None, None]
    }
    fast |= {k.replace("feat_bn", "heads.bottleneck.1"): v for k, v in jvtc.items() if k.startswith("feat_bn")}
    (part,) = recognise({"model": fast})
    assert torch.equal(part.state["feat.weight"], jvtc["feat.weight"]) and not part.state["feat.bias"].any()
    IdentityEncoder("jvtc").load_state_dict(part.state)


def test_a_resnet_without_a_head_gives_the_backbone_and_says_what_is_missing() -> None:
    from torchvision.models import resnet18

    state = resnet18(weights=None).state_dict()
    (part,) = recognise(state)
    assert part.variant is None and set(part.left) == {"fc.weight", "fc.bias"} and "bn.weight" in part.report()
    assert {k.removeprefix("backbone.") for k in part.state} == {k for k in state if not k.startswith("fc.")}


def test_generator_discriminator_and_several_in_one_file() -> None:
    gen, dis = official_state("gen"), official_state("dis")
    parts = recognise({"gen": gen, "dis": dis, "id": official_state("id_mlc")})
    assert [p.module for p in parts] == ["generator", "discriminator", "encoder"]
    Generator().load_state_dict(parts[0].state)
    Discriminator().load_state_dict(parts[1].state)
    assert all("running" in name for name in parts[0].left)  # statistics that AdaIN never reads
    for content in (gen, {"gen": gen}, {"state_dict": {f"module.{k}": v for k, v in gen.items()}}):
        assert recognise(content)[0].kind == "gen"


def test_gem_pooling_is_taken_over() -> None:
    (part,) = recognise(official_state("id_act") | {"gap.p": torch.tensor([2.5])})
    assert "GeM" in part.report() and part.pooling == "gem" and part.left == []
    encoder = IdentityEncoder("act", pooling="gem")
    encoder.load_state_dict(part.state)
    assert encoder.pool.p.item() == 2.5


def test_an_ibn_encoder_is_read_as_one() -> None:
    source = IdentityEncoder("act", "resnet50_ibn_a", width=8)
    names = {"backbone.": "base.", "bn.": "feat_bn."}
    theirs = {
        next(new + k[len(old) :] for old, new in names.items() if k.startswith(old)): v for k, v in source.state_dict().items()
    }
    (part,) = recognise(theirs)
    assert "resnet50_ibn_a" in part.what and part.variant == "act"
    assert all(torch.equal(part.state[name], value) for name, value in source.state_dict().items())


def test_round_trip_through_our_own_files(tmp_path: Path) -> None:
    source = tmp_path / "id_00012937.pt"
    torch.save({"id": official_state("id_mlc")}, source)
    assert main(["import-checkpoint", str(source), "--out", str(tmp_path / "id.safetensors")]) == 0
    first, again = read_published(source)[0], read_published(tmp_path / "id.safetensors")[0]
    assert again.kind == "own" and again.variant == "mlc" and first.state.keys() == again.state.keys()
    assert all(torch.equal(first.state[k], again.state[k]) for k in first.state)


def test_command_describes_and_converts_several_files(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch.save({"gen": official_state("gen")}, tmp_path / "gen_00012937.pt")
    torch.save({"dis": official_state("dis")}, tmp_path / "dis_00012937.pt")
    files = [str(tmp_path / f"{n}_00012937.pt") for n in ("gen", "dis")]
    assert main(["import-checkpoint", *files]) == 0
    text = capsys.readouterr().out
    assert "authors' generator" in text and "authors' discriminator" in text and "left: " in text
    assert main(["import-checkpoint", *files, "--out", str(tmp_path / "one.safetensors")]) == 1
    assert "2 networks" in capsys.readouterr().err
    assert main(["import-checkpoint", *files, "--out", str(tmp_path / "ours")]) == 0
    assert sorted(p.name for p in (tmp_path / "ours").iterdir()) == ["dis_00012937.safetensors", "gen_00012937.safetensors"]
    ours = tmp_path / "ours/gen_00012937.safetensors"
    before = ours.read_bytes()
    assert main(["import-checkpoint", str(ours), "--out", str(tmp_path / "ours")]) == 1
    assert f"{ours} would be written over itself: give another --out" in capsys.readouterr().err and ours.read_bytes() == before
    assert main(["import-checkpoint", files[0], "--kind", "dis"]) == 1
    assert "gen_00012937.pt" in capsys.readouterr().err


def nan(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return state | {"layer1.0.conv1.weight": torch.full_like(state["layer1.0.conv1.weight"], float("nan"))}


def test_files_that_do_not_fit_are_refused_by_name(tmp_path: Path) -> None:
    jvtc = official_state("id_jvtc")
    cases = {
        "no generator, discriminator or ResNet": {"encoder.weight": torch.ones(2)},
        "entries are none": {},
        "no ReLU before its max pooling": {"base.0.weight": torch.ones(1), "base.3.0.conv1.weight": torch.ones(1)},
        "ResNet of \\(3, 4, 7, 3\\)": jvtc | {"layer3.6.conv1.weight": torch.ones(1)},
        "non-local": jvtc | {"NL_2.0.g.weight": torch.ones(1)},
        "instance norm": jvtc | {"layer1.0.bn1.IN.weight": torch.ones(1)},
        "missing layer2.0.bn1.bias": {k: v for k, v in jvtc.items() if k != "layer2.0.bn1.bias"},
        r"layer2.0.bn1.bias \(expected \[128\], got \[3\]\)": jvtc | {"layer2.0.bn1.bias": torch.ones(3)},
        "not finite in the encoder: backbone.layer1.0.conv1.weight": nan(jvtc),
    }
    for number, (message, content) in enumerate(cases.items()):
        path = tmp_path / f"case{number}.pth"
        torch.save(content, path)
        with pytest.raises(ValueError, match=rf"case{number}\.pth.*{message}"):
            read_published(path)


def test_damaged_and_malicious_files(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    whole, cut, evil = tmp_path / "whole.pt", tmp_path / "cut.pt", tmp_path / "evil.pt"
    torch.save({"dis": official_state("dis")}, whole)
    cut.write_bytes(whole.read_bytes()[:9000])
    torch.save({"dis": {"a": MakesFolder(tmp_path / "executed")}}, evil)
    for path, words in ((cut, "truncated"), (evil, "refused")):
        assert main(["import-checkpoint", str(path)]) == 1
        error = capsys.readouterr().err
        assert path.name in error and words in error
    assert not (tmp_path / "executed").exists()


def test_init_of_every_stage_reads_the_same_files(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("tyro", reason="the command line needs tyro")
    from gcl_fast.runs.networks import build_networks

    root = write_toy_world(tmp_path / "data")
    settings = tmp_path / "toy.yaml"
    settings.write_text(SETTINGS)
    config = from_dict(
        TrainConfig,
        {
            "model": {
                "backbone": "resnet18",
                "width": 8,
                "variant": "mlc",
                "generator_width": 4,
                "generator_mlp": 8,
                "discriminator_width": 4,
            }
        },
    )
    networks = build_networks(config)
    files = {}
    for name in ("encoder", "generator", "discriminator"):
        files[name] = tmp_path / f"{name}.pt"
        torch.save(getattr(networks, name).state_dict(), files[name])
    save_checkpoint(tmp_path / "run.pt", {"stage": "stage3", "modules": {"encoder": networks.encoder.state_dict()}})
    runs = itertools.count()

    def run(stage: str, init: str, *more: str) -> tuple[int, Path]:
        name = f"run{next(runs)}"
        command = [
            "train",
            "--config",
            str(settings),
            "--root",
            str(root),
            "--runs",
            str(tmp_path),
            "--name",
            name,
            "--stage",
            stage,
            "--init",
            init,
            "--model.variant",
            "mlc",
            "--model.pooling",
            "avg",
            "--stage1.epochs",
            "1",
            "--stage3.epochs",
            "1",
            *more,
        ]
        return main(command), tmp_path / name

    code, folder = run("2", str(files["encoder"]))
    assert code == 0, capsys.readouterr().err
    trained = load_checkpoint(folder / "stage2" / "last.pt")["modules"]["encoder"]
    assert all(torch.equal(trained[k], v) for k, v in networks.encoder.state_dict().items())  # frozen: as given
    assert "encoder weights of gcl_fast" in capsys.readouterr().out
    assert run("2", str(tmp_path / "run.pt"))[0] == 0
    assert run("1", str(files["encoder"]))[0] == 0
    assert run("3", ",".join(map(str, files.values())))[0] == 0
    assert run("3", str(files["encoder"]))[0] == 1
    assert "stage 3 needs the discriminator, generator" in capsys.readouterr().err
    assert run("2", str(files["generator"]))[0] == 1
    assert "none of the files holds an identity encoder" in capsys.readouterr().err
    assert run("1", str(files["encoder"]), "--model.variant", "jvtc")[0] == 1
    assert "set --model.variant mlc\n" in capsys.readouterr().err
    assert run("1", str(files["encoder"]), "--model.variant", "jvtc", "--model.pooling", "gem")[0] == 1
    assert "set --model.variant mlc --model.pooling avg\n" in capsys.readouterr().err
