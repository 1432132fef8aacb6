"""GradientReport: text, HTML, dict, picture, assertion."""
