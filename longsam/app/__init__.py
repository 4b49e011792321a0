"""The page in the browser: see, prompt, track and mend a long video."""
