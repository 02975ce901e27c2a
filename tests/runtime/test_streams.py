import torch

from gantoolkit.runtime.streams import run_parallel


def test_tasks_run_in_order_without_streams() -> None:
    calls: list[int] = []

    def task(number: int) -> int:
        calls.append(number)
        return number * number

    tasks = [(key, lambda number=number: task(number)) for number, key in enumerate(["G_AB", "G_BA", "G_AB", ""])]
    assert run_parallel(tasks) == [0, 1, 4, 9]
    assert calls == [0, 1, 2, 3]


def test_results_keep_their_gradients() -> None:
    weight = torch.ones(2, requires_grad=True)
    results = run_parallel([("a", lambda: weight.sum()), ("b", lambda: (2 * weight).sum())])
    torch.stack(results).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [3.0, 3.0]
