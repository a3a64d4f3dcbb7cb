"""Agents of a task's own: which objects ought to exist, and rounds that wait for those agents alone."""

from typing import Any

from controller.addressbook import AddressBook
from controller.kubernetes import workload
from controller.plan import Ground, Settings
from controller.source_files import with_uid
from controller.tasks import Task, load_tasks
from tests.unit.controller.controller_world import World, net_reach, report, tasks
from topics.mesh_members import chunks

TEMPLATE: dict[str, Any] = {
    "spec": {
        "template": {
            "spec": {
                "hostNetwork": True,
                "affinity": {"nodeAffinity": {}},
                "securityContext": {"sysctls": [{"name": "a"}], "runAsNonRoot": True},
                "containers": [
                    {"name": "agent", "env": [{"name": "KPATROL_GROUP", "value": "default"}, {"name": "A"}]}
                ],
            }
        }
    }
}
SERVICE: dict[str, Any] = {
    "spec": {
        "type": "NodePort",
        "ipFamilies": ["IPv6"],
        "ports": [{"name": "http", "port": 80, "targetPort": "http", "nodePort": 31080}],
        "clusterIPs": ["fd00::1"],
    }
}


def task(text: str, *, name: str = "t") -> Task:
    head = f"apiVersion: kdoctor.io/v1beta1\nkind: NetReach\nmetadata: {{name: {name}}}\nspec: "
    return with_uid(load_tasks(head + text)[0])


def made(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    found = workload.desired(task(text), template=TEMPLATE, services=[SERVICE], namespace="ns")
    return found[0], found[1]


def test_a_daemonset_of_its_own_is_the_default_one_with_another_group_and_goes_with_its_task() -> None:
    daemonset, _ = made("{agentSpec: {}}")
    pod = daemonset["spec"]["template"]["spec"]
    uid = task("{agentSpec: {}}").metadata.uid
    assert daemonset["kind"] == "DaemonSet"
    assert "hostNetwork" not in pod
    assert pod["containers"][0]["env"] == [
        {"name": "A"}, {"name": "KPATROL_GROUP", "value": uid}, {"name": "KPATROL_AGENT", "value": "$(KPATROL_POD)"},
    ]  # fmt: skip
    assert daemonset["metadata"]["ownerReferences"][0]["uid"] == uid
    assert (
        daemonset["spec"]["selector"]["matchLabels"].items()
        <= daemonset["spec"]["template"]["metadata"]["labels"].items()
    )
    # The template is the default agents': it stays as it is.
    assert TEMPLATE["spec"]["template"]["spec"]["hostNetwork"]


def test_what_the_task_says_replaces_that_part_of_the_template() -> None:
    spec = (
        "{agentSpec: {kind: Deployment, deploymentReplicas: 2, hostNetwork: true, annotation: {a: b}, "
        "affinity: {podAffinity: {}}, env: [{name: A, value: b}], resources: {limits: {cpu: 1}}}}"
    )
    deployment, service = made(spec)
    pod = deployment["spec"]["template"]["spec"]
    assert (deployment["kind"], deployment["spec"]["replicas"]) == ("Deployment", 2)
    assert (pod["affinity"], pod["hostNetwork"], pod["dnsPolicy"]) == (
        {"podAffinity": {}}, True, "ClusterFirstWithHostNet",
    )  # fmt: skip
    assert pod["securityContext"] == {"runAsNonRoot": True}
    assert pod["containers"][0]["resources"] == {"limits": {"cpu": 1}, "claims": []}
    assert pod["containers"][0]["env"][-1] == {"name": "A", "value": "b"}
    assert deployment["spec"]["template"]["metadata"]["annotations"]["a"] == "b"
    assert service["metadata"]["annotations"]["a"] == "b"


def test_its_service_is_the_default_ones_without_what_is_given_out_once() -> None:
    _, service = made("{agentSpec: {}}")
    assert service["metadata"]["name"] == "kpatrol-netreach-t-ipv6"
    assert service["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": "http"}]
    assert "clusterIPs" not in service["spec"]


def test_a_secret_and_a_body_are_mounted_from_the_agents_namespace_alone() -> None:
    head = (
        "apiVersion: kdoctor.io/v1beta1\nkind: AppHttpHealthy\nmetadata: {name: t}\nspec: {target: {host: 'https://a', "
    )
    names = "tlsSecretName: s, tlsSecretNamespace: ns, bodyConfigmapName: b, bodyConfigmapNamespace: elsewhere}}"
    found = with_uid(load_tasks(f"{head}method: POST, {names}")[0])
    workloads = workload.desired(found, template=TEMPLATE, services=[], namespace="ns")
    pod = workloads[0]["spec"]["template"]["spec"]
    assert [volume["name"] for volume in pod["volumes"]] == ["task-tls"]
    assert pod["containers"][0]["volumeMounts"][0]["mountPath"] == workload.TLS_FOLDER
    assert workload.body_folders(found) == {"elsewhere/b": workload.BODY_FOLDER}


def test_a_netreach_that_asks_for_an_ingress_gets_one_of_its_own_before_its_service() -> None:
    default = {"spec": {"ingressClassName": "nginx", "rules": [{"http": {"paths": [{"path": "/x"}]}}]}}
    wanted = task("{agentSpec: {}, target: {ingress: true}}")
    documents = workload.desired(wanted, template=TEMPLATE, services=[SERVICE], namespace="ns", ingress=default)
    ingress = documents[-1]
    assert workload.path_of(ingress) == "/apis/networking.k8s.io/v1/namespaces/ns/ingresses/kpatrol-netreach-t"
    assert ingress["spec"] == {
        "ingressClassName": "nginx",
        "rules": [
            {"http": {"paths": [{"path": "/x", "pathType": "Exact", "backend": {"service": {
                "name": "kpatrol-netreach-t-ipv6", "port": {"name": "http"}}}}]}}
        ],
    }  # fmt: skip
    assert ingress["metadata"]["ownerReferences"][0]["uid"] == wanted.metadata.uid


def test_long_names_and_dots_are_hashed_and_stay_apart() -> None:
    names = {workload.name_of(task("{}", name=name)) for name in ("a" * 200, "a" * 199, "a.b", "a-b")}
    assert len(names) == 4
    assert all(len(name) <= workload.NAME_MAX and "." not in name for name in names)


def test_only_a_workload_that_is_up_to_date_and_complete_is_ready() -> None:
    new = {"metadata": {"generation": 2}, "status": {"observedGeneration": 1, "desiredNumberScheduled": 0}}
    empty = {"metadata": {"generation": 1}, "status": {"observedGeneration": 1, "desiredNumberScheduled": 0}}
    part = {
        "metadata": {"generation": 1},
        "status": {"observedGeneration": 1, "desiredNumberScheduled": 2, "numberReady": 1},
    }
    whole = {
        "metadata": {"generation": 1},
        "spec": {"replicas": 2},
        "status": {"observedGeneration": 1, "readyReplicas": 2},
    }
    assert [workload.ready(w) for w in (None, new, empty, part, whole)] == [0, 0, 0, 0, 2]


def test_a_task_of_its_own_agents_begins_when_they_are_ready_and_runs_among_them_alone() -> None:
    desired = tasks(net_reach(rounds=1))
    (wanted,) = desired.values()
    uid = wanted.metadata.uid
    world = World(desired=desired)

    def ground(expected: int) -> Settings:
        resource = {"runtimeName": "own", "runtimeType": "DaemonSet", "runtimeStatus": "creating"}
        grounds = {uid: Ground(group=uid, expected=expected, book=AddressBook(), resource=resource)}
        return Settings(expected_agents=3, grounds=grounds)

    world.settings = ground(0)
    world.run(5)
    assert world.scheduled() == []
    assert world.status()["reasons"] == ["waiting for agents: those of its own are not ready"]
    world.settings = ground(2)
    for _ in range(20):
        for name in ("own-1", "own-2"):
            world.observed.roster.hear(report(name, at_us=world.now_us, group=uid), at_us=world.now_us)
        world.run(0.5)
    (round_,) = world.scheduled()
    assert (round_.members.group, round_.members.count) == (uid, 2)
    assert world.status()["resource"]["runtimeName"] == "own"
    assert {member.agent for member in world.observed.epochs[1].members} == {"node-1", "node-2", "node-3"}
    assert chunks(group=uid, epoch=1, at_us=0, members=world.observed.epochs_of(uid)[1].members)
