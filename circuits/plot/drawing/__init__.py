"""What figures are drawn with: canvas, colors, SVG, crops, tables of images."""
