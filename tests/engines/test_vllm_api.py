"""What is read of vLLM's answers."""

import pytest

from icm_hpc.engines import vllm_api
from icm_hpc.engines.vllm_api import metrics
from icm_hpc.errors import BadAnswer


def test_what_a_server_loaded_is_read_where_it_says_so() -> None:
    models = {"data": [{"id": "a", "root": "/weights/a"}, {"id": "b"}, {"id": "c", "root": 7}, "d"]}
    assert [vllm_api.root(models, name) for name in "abcde"] == ["/weights/a", None, None, None, None]
    assert vllm_api.root([], "a") is None


def test_metrics_are_summed_over_engines() -> None:
    text = """# HELP vllm:prefix_cache_queries_total
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 100.0
vllm:prefix_cache_queries_total{engine="1",model_name="m"} 50.0
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 60.0
vllm:cache_config_info{block_size="32",engine="0",num_gpu_blocks="1000"} 1.0
vllm:cache_config_info{block_size="32",engine="1",num_gpu_blocks="1000"} 1.0
"""
    told = metrics(text)
    assert (told.prompt_tokens, told.cached_tokens, told.computed_tokens) == (150, 60, 90)
    assert (told.block_size, told.cache_tokens) == (32, 64000)


def test_where_the_cache_is_off_all_prompt_tokens_were_computed() -> None:
    text = """vllm:prefix_cache_queries_total{engine="0"} 0.0
vllm:prefix_cache_hits_total{engine="0"} 0.0
vllm:prompt_tokens_total{engine="0"} 100.0
vllm:prompt_tokens_total{engine="1"} 50.0
"""
    assert metrics(text).computed_tokens == 150


@pytest.mark.parametrize("text", ["", "<html>a proxy's page</html>", "process_open_fds 7.0\n"])
def test_metrics_without_vllms_counters_are_not_zeros(text: str) -> None:
    with pytest.raises(BadAnswer, match="no counters of a prefix cache"):
        metrics(text)
