"""VERB stores of one encoder -> how its features are spread: by now, over the sources that cells come from."""
