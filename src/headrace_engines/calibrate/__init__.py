"""How fast this machine reads memory and multiplies matrices, measured with torch: what `headrace calibrate` runs."""
