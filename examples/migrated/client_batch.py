"""The Client: registered functions, a batch, polling for its results."""

import sys
import time

# from globus_compute_sdk import Client
from farcall import Client

SOURCE = """
import math

SCALE = 10

def root(x, digits=2):
    return round(SCALE * math.sqrt(x), digits)
"""


def divide(a, b):
    return a / b


gcc = Client()
endpoint_id = sys.argv[1]
print("endpoint is", gcc.get_endpoint_status(endpoint_id)["status"])

root_id = gcc.register_source_code(SOURCE, "root", description="ten times the square root")
divide_id = gcc.register_function(divide)
batch = gcc.create_batch()
for number in range(4):
    batch.add(root_id, args=(number,), kwargs={"digits": 1})
batch.add(divide_id, (1, 0))
print(len(batch), "tasks")
answer = gcc.batch_run(endpoint_id, batch)
task_ids = answer["tasks"][root_id]
failed_id = answer["tasks"][divide_id][0]

while any(gcc.get_task(task_id)["pending"] for task_id in task_ids):
    time.sleep(0.1)
results = gcc.get_batch_result(task_ids)
print([results[task_id]["result"] for task_id in task_ids])

while True:
    try:
        gcc.get_result(failed_id)
    except Exception as error:
        if "not finished" in str(error):
            time.sleep(0.1)
            continue
        print("failed:", error)
        break

single = gcc.run(7, 2, endpoint_id=endpoint_id, function_id=divide_id)
while gcc.get_task(single)["pending"]:
    time.sleep(0.1)
print(gcc.get_result(single))
