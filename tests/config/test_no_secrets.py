"""Secrets are refused in settings, which are saved and shown, and are never quoted."""

from pathlib import Path

import pytest

from icm_hpc.config import loading
from icm_hpc.errors import ConfigError

SECRET = "s3cretValue0123456789"


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
     "MY_SECRET", "DB_PASSWORD", "PGPASSWORD", "hf_token", "CLIENT_SECRET_1", "AZURE_STORAGE_KEY", "TOKEN", "REDIS_PASS"],
)  # fmt: skip
def test_a_secret_in_the_engines_environment_is_refused_with_the_remedy(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f'model: {{path: x, env: {{{name}: "{SECRET}"}}}}\n')
    for word in (f"model.env.{name}={SECRET}", f"model.env={{{name}: {SECRET}}}", f"model={tmp_path}/mine.yaml"):
        with pytest.raises(ConfigError) as refused:
            loading.load(["model=stub", word])
        assert str(refused.value).startswith(f"model.env.{name}: is a secret, and settings are saved and shown: ")
        assert SECRET not in str(refused.value)
        assert "\n" not in str(refused.value)
    if name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        assert "hf auth login" in str(refused.value)


@pytest.mark.parametrize(
    "line",
    [
        f"export HF_TOKEN={SECRET}",
        f'export HF_TOKEN="{SECRET}"; module load cuda',
        f"WANDB_API_KEY='{SECRET}' true",
        f"hf auth login --token {SECRET}",
        "hf auth login --token=hf_abcdefghijklmnopqrstuv",
        "wandb login sk-abcdefghijklmnopqrstuv",
        f"curl -H 'Authorization: Bearer {SECRET}' http://x",
        f"export HTTPS_PROXY=http://me:{SECRET}@proxy:3128",
    ],
)
def test_a_secret_in_a_line_of_set_up_is_refused(line: str, tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text(f"cluster:\n  setup:\n  - |\n    {line}\n")
    with pytest.raises(ConfigError) as refused:
        loading.load([f"cluster={tmp_path}/site.yaml"])
    assert str(refused.value).startswith("cluster.setup[0]: ")
    assert SECRET not in str(refused.value)
    assert "hf_abc" not in str(refused.value)


@pytest.mark.parametrize(
    "word",
    [
        f"cluster.server_srun_flags=['--export=ALL,HF_TOKEN={SECRET}']",
        f"cluster.server_launcher=[apptainer, exec, --env, HF_TOKEN={SECRET}, x.sif]",
        f"cluster.driver_flags=['--export=ALL,MY_PASSWORD={SECRET}']",
        f"model.env.HTTPS_PROXY=http://me:{SECRET}@proxy:3128",
        "model.env.ANYTHING=hf_abcdefghijklmnopqrstuv",
    ],
)
def test_a_secret_in_flags_or_in_an_address_is_refused(word: str) -> None:
    with pytest.raises(ConfigError) as refused:
        loading.load(["model=stub", word])
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "word",
    [
        "model.env.TOKENIZERS_PARALLELISM=false",
        "model.env.HF_HUB_DISABLE_IMPLICIT_TOKEN=1",
        "model.env.HF_TOKEN_PATH=/home/me/.token",
        "model.env.SSL_KEY=/etc/ssl/key.pem",
        "model.env.NCCL_SOCKET_IFNAME=ib0",
        "model.env.HTTPS_PROXY=http://proxy:3128",
        "model.env.VLLM_MAX_TOKENS_PER_EXPERT=12",
        "cluster.setup=['export HF_TOKEN=$(cat ~/.token)', 'export A_KEY=\"$OTHER\"', 'export HF_HOME=/shared/hf']",
        "cluster.setup=[module load cuda, 'source /opt/env.sh', 'export http_proxy=http://me:$PW@proxy:3128']",
        "cluster.setup=['export HF_TOKEN=`cat /f`', 'unset HF_TOKEN', 'export TMPDIR=/x']",
    ],
)
def test_what_is_no_secret_is_left_alone(word: str) -> None:
    loading.load(["model=stub", word])
