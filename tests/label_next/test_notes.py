"""Notes on training cases."""

from riskft.label_next.scans import not_avoided


def test_training_cases_that_are_missing_give_one_note():
    assert not_avoided([]) == []
    assert not_avoided(["a: gone"]) == ["Scans like 1 training case are not avoided: a: gone"]
    assert not_avoided([f"{number}: gone" for number in range(500)]) == [
        "Scans like 500 training cases are not avoided: 0: gone; 1: gone; 2: gone; and 497 more"
    ]
    assert not_avoided(["no space"] * 3) == ["Scans like 3 training cases are not avoided: no space"]
