import { expect, test } from 'vitest'
import { parseIptables } from '../../../src/lab/iptables/parse.js'
import { saveIptables } from '../../../src/lab/iptables/save.js'
import { table_blob } from '../../../src/lib/iptables.js'

const rule = (text: string, table = 'filter'): string => `*${table}\n${text}\nCOMMIT\n`

test.each([
  ['-A FORWARD -s 10.0.0.0/8 -j ACCEPT'],
  ['-A FORWARD ! -s 10.0.0.1 -d 10.0.0.0/255.0.255.0 -j DROP'],
  ['-A FORWARD -i eth+ ! -o eth1 -j RETURN'],
  ['-A INPUT -p udp -m udp --sport 1:5 ! --dport 7 -j QUEUE'],
  ['-A INPUT -p tcp -m tcp --dport 80 --tcp-flags FIN,SYN,RST,ACK SYN -j ACCEPT'],
  ['-A INPUT -p icmp -m icmp --icmp-type 3/4 -j ACCEPT'],
  ['-A INPUT ! -p udp -f -j ACCEPT'],
  ['-A INPUT -p tcp -m multiport --dports 1,5:9 -j ACCEPT'],
  ['-A INPUT -m state --state ESTABLISHED,RELATED -j ACCEPT'],
  ['-A INPUT -m limit --limit 3/min --limit-burst 9 -j ACCEPT'],
  ['-A INPUT -m mac ! --mac-source 02:00:00:0A:FF:80 -j ACCEPT'],
  ['-A INPUT -m length --length 0:100 -m ttl --ttl-gt 3 -j ACCEPT'],
  ['-A INPUT -m addrtype --src-type UNICAST,LOCAL ! --dst-type BROADCAST -j ACCEPT'],
  ['-A INPUT -m iprange --src-range 10.0.0.1-10.0.0.9 -m pkttype --pkt-type broadcast -j ACCEPT'],
  ['-A INPUT -j LOG --log-prefix "a \\"b\\" c" --log-level 6'],
  ['-A INPUT -j REJECT --reject-with icmp-host-prohibited'],
])('%s is written as it was read', line => {
  const [table] = parseIptables(rule(line), 'x')
  expect(saveIptables(table_blob(table!))).toContain(`[0:0] ${line}\n`)
})

test.each([
  ['-A POSTROUTING -o eth1 -j MASQUERADE'],
  ['-A POSTROUTING -p tcp -j MASQUERADE --to-ports 1000-2000'],
  ['-A POSTROUTING -s 10.0.0.0/8 -j SNAT --to-source 192.0.2.1-192.0.2.9:1000-2000'],
  ['-A POSTROUTING -j SNAT --to-source 192.0.2.1'],
  ['-A PREROUTING -p udp -m udp --dport 53 -j DNAT --to-destination 10.0.0.2:5353'],
  ['-A PREROUTING -p udp -j DNAT --to-destination :5353'],
  ['-A OUTPUT -p udp -j REDIRECT --to-ports 7'],
  ['-A PREROUTING -d 192.0.2.0/24 -j NETMAP --to 10.0.0.0/24'],
])('%s of table nat is written as it was read', line => {
  const [table] = parseIptables(rule(line, 'nat'), 'x')
  expect(saveIptables(table_blob(table!))).toContain(`[0:0] ${line}\n`)
})

test('counters, policies and chains come back', () => {
  const text =
    '*mangle\n:PREROUTING ACCEPT [3:300]\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [5000000000:12]\n:mine - [0:0]\n[7:4294967296] -A PREROUTING -j mine\n[1:2] -A mine -j MARK --set-mark 0xff\nCOMMIT\n'
  expect(saveIptables(table_blob(parseIptables(text, 'x')[0]!))).toBe(text)
})

test.each([
  ['-A FORWARD -s 10.0.0 -j DROP', "r:2: '10.0.0' is no IPv4 address"],
  ['-A FORWARD -s 10.0.0.0/33 -j DROP', "r:2: '10.0.0.0/33' must have a length from 0 to 32"],
  ['-A NOWHERE -j DROP', "r:2: there is no chain 'NOWHERE'"],
  ['-A FORWARD -j NOTHING', "r:2: there is no target or chain 'NOTHING'"],
  ['-A FORWARD --dport 3 -j DROP', "r:2: there is no option '--dport' here"],
  ['-A FORWARD -m what -j DROP', "r:2: there is no match 'what'"],
  ['-A FORWARD -p udp --dport 9:3 -j DROP', "r:2: the port '9:3' must be a number up to 65535, or two with a ':'"],
  ['-A FORWARD -j', 'r:2: the target is missing at the end of the line'],
  ['-A INPUT -o eth0 -j DROP', "r:2: chain INPUT knows no interface 'eth0' that a packet goes out by"],
  [':FORWARD REJECT [0:0]', "r:2: the policy 'REJECT' must be ACCEPT or DROP"],
  [':PREROUTING ACCEPT [0:0]', 'r:2: table filter has no chain PREROUTING'],
  ['*nat', "r:2: table 'nat' begins before COMMIT of table 'filter'"],
  ['-D FORWARD', "r:2: '-D' is no -A"],
])('%s: %s', (line, message) => {
  expect(() => parseIptables(rule(line), 'r')).toThrow(message)
})

test.each([
  ['-A POSTROUTING -j SNAT', 'r:2: target SNAT says nothing without --to-source'],
  ['-A PREROUTING -j NETMAP', 'r:2: target NETMAP says nothing without --to'],
  ['-A POSTROUTING -j MASQUERADE --to-ports 9-3', "r:2: '9-3' has no range of ports from 1 to 65535"],
  ['-A POSTROUTING -j SNAT --to-source 10.0.0.1-', "r:2: '10.0.0.1-' is no range of addresses and ports"],
])('table nat: %s: %s', (line, message) => {
  expect(() => parseIptables(rule(line, 'nat'), 'r')).toThrow(message)
})

test('COMMIT is missing', () => {
  expect(() => parseIptables('*filter\n', 'r')).toThrow("COMMIT of table 'filter' is missing")
})
