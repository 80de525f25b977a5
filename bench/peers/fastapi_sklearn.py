"""Peer: FastAPI on uvicorn that calls LightGBM's scikit-learn wrapper on a pandas row, as tutorials
show it.
"""

import sys

import lightgbm as lgb
import numpy as np
import pandas as pd
import uvicorn
from fastapi import FastAPI

booster = lgb.Booster(model_file=sys.argv[2])
names = booster.feature_name()
random = np.random.default_rng(1)
training = pd.DataFrame(random.gamma(1.0, 10.0, (20_000, len(names))), columns=names)
model = lgb.LGBMClassifier(n_estimators=booster.num_trees(), num_leaves=31, n_jobs=1, verbose=-1)
model.fit(training, training.sum(axis=1) + random.normal(0, 50, len(training)) > 10.0 * len(names))
known = training.head(1024).to_dict("records")
app, turn = FastAPI(), 0


# FastAPI is installed apart, so mypy does not know its types.
@app.get("/v1/check/{path:path}")  # type: ignore[untyped-decorator]
async def check(path: str) -> dict[str, float]:
    global turn
    turn = (turn + 1) % len(known)
    return {"risk": float(np.asarray(model.predict_proba(pd.DataFrame([known[turn]])))[0, 1])}


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="error",
    )
