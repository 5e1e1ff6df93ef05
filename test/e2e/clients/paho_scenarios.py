"""What Python's paho client sees of the gateway: paho_scenarios.py PORT VERSION SCENARIO; exit code 0 when all is well."""

import json
import sys
import threading
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PORT = int(sys.argv[1])
V5 = sys.argv[2] == "5"
PROTOCOL = {"3": mqtt.MQTTv31, "4": mqtt.MQTTv311, "5": mqtt.MQTTv5}[sys.argv[2]]
NAME = sys.argv[3] + "-" + sys.argv[2]
PATIENCE_S = 20


def wait(condition, what):
    """Waits for what another thread brings."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("waited in vain: " + what)
        time.sleep(0.005)


def properties(kind, **values):
    made = Properties(kind)
    for key, value in values.items():
        setattr(made, key, value)
    return made


class Client:
    """A connected client that keeps what it receives."""

    def __init__(self, name, clean=True, expiry=0, will=None, **connect):
        options = {} if V5 else {"clean_session": clean}
        self.mqtt = mqtt.Client(NAME + "-" + name, protocol=PROTOCOL, **options)
        self.messages, self.flags, self.ended = [], None, None
        self.mqtt.on_message = lambda _client, _data, message: self.messages.append(message)
        if V5:
            self.mqtt.on_connect = lambda _c, _d, flags, code, props: self.connected(flags, code, props)
            self.mqtt.on_disconnect = lambda _c, _d, code, _props: self.disconnected(code)
        else:
            self.mqtt.on_connect = lambda _c, _d, flags, code: self.connected(flags, code, None)
            self.mqtt.on_disconnect = lambda _c, _d, code: self.disconnected(code)
        if will is not None:
            self.mqtt.will_set(**will)
        arguments = {}
        if V5:
            arguments = {
                "clean_start": clean,
                "properties": properties(PacketTypes.CONNECT, SessionExpiryInterval=expiry, **connect),
            }
        self.mqtt.connect("127.0.0.1", PORT, 60, **arguments)
        self.mqtt.loop_start()
        wait(lambda: self.flags is not None, "CONNACK")

    def connected(self, flags, code, props):
        self.flags, self.code, self.properties = flags, code, props

    def disconnected(self, code):
        self.ended = code

    def subscribe(self, topic, qos=2, **options):
        done = threading.Event()
        self.mqtt.on_subscribe = lambda *_: done.set()
        self.mqtt.subscribe(topic, qos, **options)
        assert done.wait(PATIENCE_S), "no SUBACK"

    def publish(self, topic, payload, qos=1, retain=False, **values):
        options = {"properties": properties(PacketTypes.PUBLISH, **values)} if V5 and values else {}
        info = self.mqtt.publish(topic, payload, qos, retain, **options)
        info.wait_for_publish(PATIENCE_S)
        assert info.is_published(), "not acknowledged"

    def wait_for(self, count):
        wait(lambda: len(self.messages) >= count, str(count) + " messages, got " + str(len(self.messages)))
        return [(m.topic, m.payload.decode(), m.qos, m.retain) for m in self.messages]

    def leave(self):
        self.mqtt.disconnect()
        self.mqtt.loop_stop()

    def die(self):
        """Ends the network connection without DISCONNECT."""
        self.mqtt.loop_stop()
        self.mqtt._sock_close()


def expect(got, wanted):
    if got != wanted:
        raise SystemExit("got " + repr(got) + ", wanted " + repr(wanted))


def qos():
    client = Client("c")
    client.subscribe(NAME + "/#")
    wanted = []
    for level in (0, 1, 2):
        client.publish(NAME + "/x", str(level), level)
        wanted.append((NAME + "/x", str(level), level, False))
    expect(client.wait_for(3), wanted)


def telemetry():
    client = Client("c")
    client.subscribe("devices/" + NAME + "/telemetry")
    for seq in range(30):
        reading = {"ts": 1763700000000 + seq, "seq": seq, "metrics": {"t": 1}}
        client.publish("devices/" + NAME + "/telemetry", json.dumps(reading), seq % 3)
    got = [(level, json.loads(payload)["seq"]) for _, payload, level, _ in client.wait_for(30)]
    for level in (0, 1, 2):  # each QoS has its order: paho shows a QoS 2 message when its PUBREL has come
        expect([seq for each, seq in got if each == level], list(range(level, 30, 3)))


def retained():
    client = Client("c")
    client.publish(NAME, "kept", 1, True)
    client.subscribe(NAME)
    expect(client.wait_for(1), [(NAME, "kept", 1, True)])
    client.publish(NAME, "", 1, True)
    expect(client.wait_for(2)[1], (NAME, "", 1, False))
    later = Client("later")
    later.subscribe(NAME)
    client.publish(NAME, "live")
    expect(later.wait_for(1), [(NAME, "live", 1, False)])


def will():
    watcher = Client("watcher")
    watcher.subscribe(NAME)
    Client("leaves", will={"topic": NAME, "payload": "wrong", "qos": 1}).leave()
    Client("dies", will={"topic": NAME, "payload": "gone", "qos": 1}).die()
    expect(watcher.wait_for(1), [(NAME, "gone", 1, False)])


def session():
    first = Client("c", clean=False, expiry=60)
    expect(first.flags["session present"], 0)
    first.subscribe(NAME)
    first.die()
    sender = Client("sender")
    sender.publish(NAME, "one", 1)
    sender.publish(NAME, "two", 2)
    second = Client("c", clean=False, expiry=60)
    if PROTOCOL != mqtt.MQTTv31:
        expect(second.flags["session present"], 1)
    expect(second.wait_for(2), [(NAME, "one", 1, False), (NAME, "two", 2, False)])


def takeover():
    first = Client("c")
    first.mqtt.reconnect_delay_set(100, 100)
    Client("c")
    wait(lambda: first.ended is not None, "the end of the first")
    first.mqtt.loop_stop()


def expiry():
    first = Client("c", clean=False, expiry=1)
    first.subscribe(NAME)
    first.leave()
    time.sleep(2.5)  # intervals are in whole seconds
    expect(Client("c", clean=False, expiry=1).flags["session present"], 0)


def message_expiry():
    first = Client("c", clean=False, expiry=60)
    first.subscribe(NAME)
    first.leave()
    sender = Client("sender")
    sender.publish(NAME, "short", MessageExpiryInterval=1)
    sender.publish(NAME, "long", MessageExpiryInterval=100)
    time.sleep(2.1)
    second = Client("c", clean=False, expiry=60)
    expect(second.wait_for(1), [(NAME, "long", 1, False)])
    assert second.messages[0].properties.MessageExpiryInterval < 100


def user_properties():
    client = Client("c")
    client.subscribe(NAME)
    pairs = [("z", "1"), ("a", "2"), ("z", "3")]
    client.publish(NAME, "x", UserProperty=pairs, ContentType="text/plain", CorrelationData=b"\x00\xff")
    client.wait_for(1)
    got = client.messages[0].properties
    expect(sorted(got.UserProperty), sorted(pairs))
    expect([value for key, value in got.UserProperty if key == "z"], ["1", "3"])
    expect(got.ContentType, "text/plain")


def topic_alias():
    client = Client("c")
    assert client.properties.TopicAliasMaximum > 0, "no aliases are taken"
    client.subscribe(NAME)
    client.publish(NAME, "one", TopicAlias=1)
    # paho does not take an empty topic; the gateway sees the topic and the alias again.
    client.publish(NAME, "two", TopicAlias=1)
    expect([payload for _, payload, _, _ in client.wait_for(2)], ["one", "two"])


def flow_control():
    client = Client("c", ReceiveMaximum=2)
    client.subscribe(NAME)
    sender = Client("sender")
    for number in range(20):
        sender.publish(NAME, str(number), 1 + number % 2)
    numbers = [int(payload) for _, payload, _, _ in client.wait_for(20)]
    # Order is kept within a QoS: paho shows a QoS 2 message when its PUBREL has come.
    expect(sorted(numbers), list(range(20)))
    expect([number for number in numbers if number % 2], list(range(1, 20, 2)))


def will_delay():
    watcher = Client("watcher")
    watcher.subscribe(NAME)
    delayed = properties(PacketTypes.WILLMESSAGE, WillDelayInterval=1)
    last = {"topic": NAME, "payload": "wrong", "qos": 1, "properties": delayed}
    Client("back", expiry=60, will=last).die()
    Client("back", clean=False, expiry=60)
    Client("dies", expiry=60, will={**last, "payload": "gone"}).die()
    expect(watcher.wait_for(1), [(NAME, "gone", 1, False)])


globals()[sys.argv[3]]()
