"""How a picture is judged: critics, cut-outs, prompts with weights, losses, and the gradient on the pixels."""
