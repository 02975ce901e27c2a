"""Programs that run on the stand-in: `python -m fakecuda.programs.NAME`, in an `environment` that `building` describes."""
