"""OpenVINO GenAI: `python openvino_worker.py MODEL`. It cannot prune LLaVA: pruning_ratio is ignored."""

from __future__ import annotations

import sys

import openvino as ov
import openvino_genai as genai
import protocol


def main() -> None:
    scheduler = genai.SchedulerConfig()
    scheduler.enable_prefix_caching = False
    scheduler.max_num_batched_tokens = 2**31 - 1
    pipeline = genai.VLMPipeline(sys.argv[1], "CPU", scheduler_config=scheduler, INFERENCE_NUM_THREADS=protocol.THREADS)
    image = ov.Tensor(protocol.picture())
    asked = genai.GenerationConfig()
    asked.max_new_tokens, asked.do_sample, asked.ignore_eos = protocol.NEW_TOKENS, False, True

    def answer() -> dict[str, float]:
        metrics = pipeline.generate(protocol.QUESTION, images=[image], generation_config=asked).perf_metrics
        return {
            "openvino_ttft": metrics.get_ttft().mean,
            "openvino_vision": metrics.get_prepare_embeddings_duration().mean,
            "openvino_decode": metrics.get_tpot().mean,
            "openvino_input_tokens": float(metrics.get_num_input_tokens()),
        }

    facts = {"openvino": ov.get_version(), "openvino_genai": genai.__version__, "weights": "int4, group 64"}
    protocol.serve(facts, {"answer": answer})


if __name__ == "__main__":
    main()
