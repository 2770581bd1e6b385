"""moto, an S3 server, so that it can be killed: moto itself keeps everything in memory.

    store.py PORT FOLDER

What a request changed is in FOLDER/state (replaced as a whole) before its answer leaves, as a real store would have it; a start goes on from there.
FOLDER/slow, where it is, has the most milliseconds that a request waits before it is done, and again before it is answered: so some are done
whose caller is gone.
"""

import os
import pickle
import random
import sys
import threading
import time

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import run_simple

port, folder = int(sys.argv[1]), sys.argv[2]
state = os.path.join(folder, "state")
lock = threading.Lock()


def buckets():
    return s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets


def save():
    with open(state + ".new", "wb") as file:
        pickle.dump(dict(buckets()), file)
    os.rename(state + ".new", state)


def wait():
    try:
        with open(os.path.join(folder, "slow")) as file:
            most = float(file.read() or 0)
    except FileNotFoundError:
        return
    time.sleep(random.random() * most / 1000)


moto = DomainDispatcherApplication(create_backend_app)


def app(environ, start_response):
    wait()
    # One at a time: what is saved is then what was answered.
    with lock:
        answer = list(moto(environ, start_response))
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            save()
    wait()
    return answer


if os.path.exists(state):
    with open(state, "rb") as file:
        buckets().update(pickle.load(file))
run_simple("127.0.0.1", port, app, threaded=True)
