package auth

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/ocirequest"
)

func TestCase20LoopbackIsAnchored(t *testing.T) {
	tests := []struct {
		host string
		want reach
	}{
		{"localhost", sameMachine},
		{"LOCALHOST", sameMachine},
		{"localhost.", sameMachine},
		{"registry.localhost", sameMachine},
		{"127.0.0.1", sameMachine},
		{"127.255.0.9", sameMachine},
		{"::1", sameMachine},
		{"::ffff:127.0.0.1", sameMachine},
		{"127.0.0.1.example.com", everywhere},
		{"localhost.example.com", everywhere},
		{"notlocalhost", everywhere},
		{"10.1.2.3", sameNetwork},
		{"172.16.0.1", sameNetwork},
		{"192.168.1.1", sameNetwork},
		{"100.100.100.200", sameNetwork},
		{"198.18.0.1", sameNetwork},
		{"::ffff:10.0.0.1", sameNetwork},
		{"::ffff:100.64.0.1", sameNetwork},
		{"fd00:ec2::254", sameNetwork},
		{"64:ff9b::10.0.0.1", sameNetwork},
		{"2002:a00:1::1", sameNetwork},
		{"169.254.169.254", nowhere},
		{"fe80::1%eth0", nowhere},
		{"0.0.0.0", nowhere},
		{"0.1.2.3", nowhere},
		{"::", nowhere},
		{"224.0.0.1", nowhere},
		{"255.255.255.255", nowhere},
		{"fec0::1", nowhere},
		{"2130706433", nowhere},
		{"127.1", nowhere},
		{"0x7f.1", nowhere},
		{"127.0.0.0x1", nowhere},
		{"8.8.8.8", everywhere},
		{"64:ff9b::8.8.8.8", everywhere},
		{"2001:4860:4860::8888", everywhere},
		{"auth.example", everywhere},
		{"host.local", everywhere},
		{"0xyz.example.0xg", everywhere},
	}
	for _, tt := range tests {
		if got := ocirequest.IsLoopback(tt.host); got != (tt.want == sameMachine) {
			t.Errorf("IsLoopback(%q) = %v", tt.host, got)
		}
		if got := hostReach(tt.host); got != tt.want {
			t.Errorf("hostReach(%q) = %v, want %v", tt.host, got, tt.want)
		}
	}
}

func TestCase11RealmsAreResolvedAndJudged(t *testing.T) {
	const public, private, loopback = "https://registry.example/v2/a/tags", "https://10.0.0.5/v2/", "http://127.0.0.1:5000/v2/"
	tests := []struct {
		registry, realm string
		want            string // the realm; "" if it is refused
	}{
		{public, "https://auth.example/token", "https://auth.example/token"},
		{public, "/token?a=b", "https://registry.example/token?a=b"},
		{public, "token", "https://registry.example/v2/a/token"},
		{public, "//auth.example/token", "https://auth.example/token"},
		{public, "https://user:secret@auth.example/t#f", "https://auth.example/t"},
		{public, "https://8.8.8.8/token", "https://8.8.8.8/token"},
		{public, "http://auth.example/token", ""},
		{public, "http://registry.example/token", ""},
		{public, "http://127.0.0.1.evil.com/token", ""},
		{public, "https://10.0.0.1/token", ""},
		{public, "https://169.254.169.254/latest", ""},
		{public, "https://[fd00:ec2::254]/latest", ""},
		{public, "https://[::ffff:169.254.169.254]/latest", ""},
		{public, "https://2852039166/latest", ""},
		{public, "http://localhost:2375/token", ""},
		{public, "https://127.0.0.1/token", ""},
		{public, "ftp://auth.example/token", ""},
		{public, "file:///etc/passwd", ""},
		{public, "https:///token", ""},
		{public, "https://au\x7fth/", ""},
		{public, "https://b\u00fccher.example/token", ""},
		{public, "https://b%C3%BCcher.example/token", ""},
		{public, "https://xn--bcher-kva.example/token", "https://xn--bcher-kva.example/token"},
		{"http://registry.example/v2/", "/token", "http://registry.example/token"},
		{"http://registry.example/v2/", "http://registry.example:80/token", "http://registry.example:80/token"},
		{"http://registry.example/v2/", "http://registry.example:81/token", ""},
		{"http://registry.example/v2/", "http://auth.example/token", ""},
		{private, "https://10.0.0.1/token", "https://10.0.0.1/token"},
		{private, "http://10.0.0.1/token", ""},
		{private, "http://localhost:9/token", ""},
		{private, "https://127.0.0.1/token", ""},
		{private, "https://169.254.169.254/token", ""},
		{private, "https://10.0.0.5:8443/token", "https://10.0.0.5:8443/token"},
		{private, "http://10.0.0.5:8443/token", ""},
		{loopback, "https://10.0.0.1/token", "https://10.0.0.1/token"},
		{loopback, "https://169.254.169.254/token", ""},
		{"https://169.254.1.1:5000/v2/", "https://169.254.1.1/token", "https://169.254.1.1/token"},
		{loopback, "http://127.0.0.1:5001/token", "http://127.0.0.1:5001/token"},
		{loopback, "http://auth.localhost/token", "http://auth.localhost/token"},
		{loopback, "https://auth.example/token", "https://auth.example/token"},
		{loopback, "http://auth.example/token", ""},
		{"https://127.0.0.1.evil.com/v2/", "https://127.0.0.1/token", ""},
	}
	for _, tt := range tests {
		target, err := url.Parse(tt.registry)
		if err != nil {
			t.Fatal(err)
		}
		d, err := new(Transport).demand(target, challenge{scheme: schemeBearer, params: map[string]string{"realm": tt.realm}}, everywhere)
		got := ""
		if err == nil {
			got = d.realmText()
		}
		if got != tt.want {
			t.Errorf("realm %q of %s is %q, %v; want %q", tt.realm, tt.registry, got, err, tt.want)
		}
		if err != nil && (!errors.Is(err, berth.ErrUnauthorized) || !strings.Contains(err.Error(), target.Host)) {
			t.Errorf("realm %q of %s: error %q", tt.realm, tt.registry, err)
		}
	}
}

func TestServiceDefaultsToTheRegistry(t *testing.T) {
	realm := &fakeRealm{}
	rt := pair(&fakeRegistry{challenges: []string{`Bearer realm="https://auth.example/token"`}}, realm)
	get(t, rt, registryURL+"/v2/")
	wantEqual(t, "service", realm.requests()[0].service, "registry.example")
}

func TestOriginsAreComparedWithTheirPorts(t *testing.T) {
	tests := []struct {
		a, b string
		want bool
	}{
		{"https://h", "https://H:443/x", true},
		{"http://h:80", "HTTP://h", true},
		{"https://h", "http://h", false},
		{"https://h", "https://h:444", false},
		{"https://h", "https://h.", false},
		{"https://[::1]:5000", "https://[::1]:5000/v2", true},
	}
	for _, tt := range tests {
		a, _ := url.Parse(tt.a)
		b, _ := url.Parse(tt.b)
		if got := sameOrigin(a, b); got != tt.want {
			t.Errorf("sameOrigin(%s, %s) = %v", tt.a, tt.b, got)
		}
	}
}
