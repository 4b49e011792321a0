"""The page in the browser: see, prompt, track and correction a long video."""
