import { describe, expect, test } from 'vitest'
import { checkIptables } from '../../../src/lab/iptables/check.js'
import { parseIptables } from '../../../src/lab/iptables/parse.js'
import { saveIptables } from '../../../src/lab/iptables/save.js'
import { table_blob } from '../../../src/lib/iptables.js'

const rule = (text: string, table = 'filter'): string => `*${table}\n${text}\nCOMMIT\n`

test.each<[line: string, written?: string]>([
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
  ['-A INPUT -m dscp --dscp 0x2e -m dscp -j ACCEPT', '-A INPUT -m dscp --dscp 0x2e -j ACCEPT'],
  ['-A INPUT -m dscp ! --dscp-class af21 -j ACCEPT', '-A INPUT -m dscp ! --dscp 0x12 -j ACCEPT'],
  ['-A INPUT -p tcp -m ecn ! --ecn-tcp-ece --ecn-tcp-cwr --ecn-ip-ect 2 -j ACCEPT'],
  ['-A INPUT -p tcp -m ecn --ecn-tcp-ece ! --ecn-tcp-cwr -j ACCEPT'],
  [
    '-A INPUT -p tcp --syn ! -f ! --dport 3 -j DROP',
    '-A INPUT -p tcp ! -f -m tcp ! --dport 3 --tcp-flags FIN,SYN,RST,ACK SYN -j DROP',
  ],
  ['-A INPUT -p esp -m esp --espspi 5:4294967295 -j ACCEPT'],
  ['-A INPUT -p ah --ahspi ! 7 -j ACCEPT', '-A INPUT -p ah -m ah ! --ahspi 7 -j ACCEPT'],
  ['-A INPUT -p tcp -m tcpmss ! --mss 536:1460 -j ACCEPT'],
  [
    '-A INPUT -p tcp -m tcp --syn -j TCPMSS --clamp-mss-to-pmtu',
    '-A INPUT -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j TCPMSS --clamp-mss-to-pmtu',
  ],
  ['-A INPUT -m conntrack --ctstate NEW,RELATED,SNAT ! --ctproto 17 ! --ctorigsrc 10.0.0.0/8 -j ACCEPT'],
  ['-A INPUT -m conntrack --ctorigdst 1.2.3.4 --ctreplsrc 5.0.0.0/8 --ctrepldst 6.7.8.9 -j ACCEPT'],
  ['-A INPUT -m conntrack ! --ctstatus SEEN_REPLY,ASSURED ! --ctexpire 5:60 -j ACCEPT'],
  [
    '-A INPUT -m conntrack --ctproto tcp --ctstatus NONE --ctexpire 5: -j ACCEPT',
    '-A INPUT -m conntrack --ctproto 6 --ctstatus NONE --ctexpire 5:4294967295 -j ACCEPT',
  ],
  ['-A OUTPUT -m owner ! --uid-owner 1000 -j ACCEPT'],
  ['-A INPUT -m recent --set -j ACCEPT', '-A INPUT -m recent --set --name DEFAULT --rsource -j ACCEPT'],
  ['-A INPUT -m recent ! --update --seconds 60 --hitcount 4 --rttl --name ssh --rdest -j DROP'],
  ['-A INPUT -m hashlimit --hashlimit 10/sec --hashlimit-mode srcip-dstport --hashlimit-name web -j ACCEPT'],
  [
    '-A INPUT -m hashlimit --hashlimit 3/min --hashlimit-burst 9 --hashlimit-mode dstip --hashlimit-name a --hashlimit-htable-max 7 --hashlimit-htable-gcinterval 200 --hashlimit-htable-expire 5000 -j ACCEPT',
  ],
  ['-A INPUT -j ULOG --ulog-prefix "a b" --ulog-nlgroup 32 --ulog-cprange 100 --ulog-qthreshold 50'],
  ['-A INPUT -j ULOG'],
  ['-A INPUT -j TCPMSS --set-mss 1400'],
  ['-A INPUT -j DSCP --set-dscp-class EF', '-A INPUT -j DSCP --set-dscp 0x2e'],
  ['-A INPUT -j ECN --ecn-tcp-remove'],
  ['-A INPUT -j ECN --ecn-tcp-ece 1 --ecn-tcp-cwr 0 --ecn-ip-ect 3'],
  ['-A INPUT -j CLASSIFY --set-class 1:ff10'],
])('%s is written as it was read', (line, written = line) => {
  const [table] = parseIptables(rule(line), 'x')
  expect(saveIptables(table_blob(table!))).toContain(`[0:0] ${written}\n`)
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
  ['-A FORWARD -m dscp --dscp 64 -j DROP', "r:2: the code point '64' must be a number from 0 to 63"],
  ['-A FORWARD -m dscp --dscp-class AF44 -j DROP', "r:2: there is no class 'AF44'"],
  ['-A FORWARD -p esp --espspi 9:3 -j DROP', "r:2: '9:3' is no range of SPIs"],
  ['-A FORWARD -j CLASSIFY --set-class 10', "r:2: '10' is no class such as 1:10"],
  [
    '-A FORWARD -m recent --name a -j DROP',
    'r:2: match recent says nothing without --set or --rcheck or --update or --remove',
  ],
  ['-A FORWARD -m recent --set --remove -j DROP', "r:2: '--remove' is one thing too many that match recent does"],
  ['-A FORWARD -m recent --set --name a/b -j DROP', "r:2: 'a/b' cannot be the name of a list"],
  [
    '-A FORWARD -m hashlimit --hashlimit 3/s --hashlimit-name a -j DROP',
    'r:2: match hashlimit says nothing without --hashlimit-mode',
  ],
  ['-A FORWARD -m hashlimit --hashlimit-mode ip -j DROP', "r:2: there is no mode 'ip'"],
  ['-A FORWARD -m conntrack --ctexpire 9:3 -j DROP', "r:2: '9:3' are no seconds such as 5 or 5:60"],
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
  ['-A FORWARD -j constructor', "r:2: there is no target or chain 'constructor'"],
  ['-A FORWARD constructor -j DROP', "r:2: there is no option 'constructor' here"],
  ['-A FORWARD -p tcp --tcp-flags constructor SYN -j DROP', "r:2: there is no flag 'constructor'"],
  ['-A FORWARD -m state --state constructor -j DROP', "r:2: there is no state 'constructor'"],
  ['-A FORWARD -m limit --limit 1/constructor -j DROP', "r:2: '1/constructor' is no rate such as 3/minute"],
  ['-A FORWARD ! -j DROP', "r:2: '-j' knows no '!'"],
  ['-A FORWARD -m ttl ! --ttl-lt 5 -j DROP', "r:2: '--ttl-lt' knows no '!'"],
  ['-A FORWARD -m limit --limit ! 3/s -j DROP', "r:2: '--limit' knows no '!'"],
  ['-A FORWARD -s 10.0.0.1 --source 10.0.0.2 -j DROP', "r:2: '--source' is there twice"],
  ['-A FORWARD -p udp --dport 1 --dport 2 -j DROP', "r:2: '--dport' is there twice"],
  ['-A FORWARD -m state -j DROP', 'r:2: match state says nothing without --state'],
  ['-A FORWARD -c 1 x -j DROP', "r:2: the number of bytes 'x' must be a number"],
  ['[99999999999999999999:0] -A FORWARD -j DROP', "r:2: '[99999999999999999999:0]' are no counters such as [0:0]"],
  [':FORWARD DROP [0:0] more', "r:2: 'more' is too much"],
  ['COMMIT more', "r:2: 'more' is too much"],
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

describe('what the kernel would refuse is said with its line', () => {
  test.each([
    ['filter', '-A INPUT -m tcp --dport 5 -j DROP', 'r:2: match tcp needs -p tcp'],
    ['filter', '-A INPUT ! -p udp -m udp --dport 5 -j DROP', 'r:2: match udp needs -p udp'],
    ['filter', '-A INPUT -p icmp -m multiport --dports 5 -j DROP', 'r:2: match multiport needs -p tcp or udp'],
    ['filter', '-A INPUT -j REJECT --reject-with tcp-reset', 'r:2: target REJECT needs -p tcp'],
    ['filter', '-A INPUT -j MARK --set-mark 1', 'r:2: target MARK belongs into table mangle'],
    ['mangle', '-A INPUT -j REJECT', 'r:2: target REJECT belongs into table filter'],
    ['nat', '-A PREROUTING -j MASQUERADE', 'r:2: target MASQUERADE cannot be reached from PREROUTING'],
    ['filter', '-A INPUT -m owner --uid-owner 0 -j DROP', 'r:2: match owner cannot be reached from INPUT'],
    ['filter', '-A INPUT -m ah --ahspi 1 -j DROP', 'r:2: match ah needs -p ah'],
    ['filter', '-A INPUT -m ecn --ecn-tcp-ece -j DROP', 'r:2: match ecn needs -p tcp'],
    ['filter', '-A FORWARD -p tcp -j TCPMSS --set-mss 9', 'r:2: target TCPMSS needs --syn'],
    [
      'mangle',
      '-A INPUT -p tcp --syn -j TCPMSS --clamp-mss-to-pmtu',
      'r:2: target TCPMSS cannot be reached from INPUT',
    ],
    ['mangle', '-A INPUT -j CLASSIFY --set-class 1:1', 'r:2: target CLASSIFY cannot be reached from INPUT'],
    [
      'nat',
      ':a - [0:0]\n-A a -j DNAT --to-destination 1.2.3.4\n-A PREROUTING -j a\n-A POSTROUTING -j a',
      'r:3: target DNAT cannot be reached from POSTROUTING',
    ],
    [
      'filter',
      ':a - [0:0]\n:b - [0:0]\n-A a -j b\n-A b -p udp -j a\n-A INPUT -j a',
      'r:5: chain a comes back to itself',
    ],
  ])('%s: %s', (table, lines, message) => {
    const tables = parseIptables(rule(lines, table), 'r')
    expect(() => checkIptables(tables, 'r')).toThrow(new RegExp(`^${message}$`))
  })
  test('what it lets pass: a chain that nobody comes to, and what stands behind a verdict for all', () => {
    const alone = ':a - [0:0]\n-A a -j a\n-A INPUT -j ACCEPT\n-A INPUT -j a'
    checkIptables(parseIptables(rule(alone), 'r'), 'r')
    const twice =
      ':a - [0:0]\n-A a -p tcp -j REJECT --reject-with tcp-reset\n-A INPUT -j a\n-A INPUT -j a\n-A OUTPUT -j a'
    checkIptables(parseIptables(rule(twice), 'r'), 'r')
  })
})

test('COMMIT is missing', () => {
  expect(() => parseIptables('*filter\n', 'r')).toThrow("COMMIT of table 'filter' is missing")
})
