package plugin

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	goplugin "github.com/hashicorp/go-plugin"
)

// ConfigVariable is the environment variable that tells a plugin process what to serve: a [Config]
// as JSON.
const ConfigVariable = "BERTH_PLUGIN_CONFIG"

// The cookie is no secret: it keeps a person from starting a plugin by hand and wondering.
const (
	cookieKey   = "BERTH_PLUGIN"
	cookieValue = "b3b0a0f6-5d0a-4f4b-9b59-6b1a8f1f7d55"
)

// Handshake is what host and plugin must agree on before a version is negotiated.
func Handshake() goplugin.HandshakeConfig {
	return goplugin.HandshakeConfig{MagicCookieKey: cookieKey, MagicCookieValue: cookieValue}
}

// Requested reports whether this process was started to be a plugin.
func Requested() bool { return os.Getenv(cookieKey) == cookieValue }

// Config tells a plugin what to serve.
type Config struct {
	// Layout is the layout directory, absolute.
	Layout string
	// Key makes the plugin private: it takes leases of those who know the key, and ends with the last of them,
	// or when its standard input does, which the host holds open. Empty: it is shared.
	Key string
	// Scratch is a directory that host and plugin meet in; whoever ends last removes it.
	Scratch string
	// StartLock is the descriptor of the lock that the host has given the plugin, which holds it until it takes
	// calls. Zero: none.
	StartLock uintptr
	// Durability is what the answers of the registry promise: "process" or "power". Empty: "process".
	Durability string
	// IdleTimeout is how long the plugin stays when nobody holds a lease any more. Zero: DefaultIdleTimeout.
	// Negative: no time.
	IdleTimeout time.Duration
	// Debug logs more.
	Debug bool
	// HostPID, Version and Protocols are those of the host that starts the plugin.
	HostPID   int
	Version   string
	Protocols Protocols
}

// DefaultIdleTimeout is how long a plugin stays when nobody holds a lease any more, where nothing else is asked for:
// long enough for the commands of one script, and for little more, since starting costs so little.
const DefaultIdleTimeout = 10 * time.Second

// wireConfig is a Config as JSON. Paths are bytes: not all of them are UTF-8.
type wireConfig struct {
	Layout      []byte        `json:"layout"`
	Key         string        `json:"key,omitempty"`
	Scratch     []byte        `json:"scratch,omitempty"`
	StartLock   uintptr       `json:"startLock,omitempty"`
	Durability  string        `json:"durability,omitempty"`
	IdleTimeout time.Duration `json:"idleTimeoutNs,omitempty"`
	Debug       bool          `json:"debug,omitempty"`
	HostPID     int           `json:"hostPid,omitempty"`
	Version     string        `json:"version,omitempty"`
	Protocols   Protocols     `json:"protocols"`
}

// Environ is the configuration as an environment variable.
func (c Config) Environ() (string, error) {
	data, err := json.Marshal(wireConfig{[]byte(c.Layout), c.Key, []byte(c.Scratch), c.StartLock, c.Durability, c.IdleTimeout, c.Debug, c.HostPID, c.Version, c.Protocols})
	return ConfigVariable + "=" + string(data), err
}

// ConfigFromEnviron reads what the host asked for.
func ConfigFromEnviron() (Config, error) {
	var w wireConfig
	if err := json.Unmarshal([]byte(os.Getenv(ConfigVariable)), &w); err != nil || len(w.Layout) == 0 {
		return Config{}, fmt.Errorf("environment variable %s does not name a layout", ConfigVariable)
	}
	return Config{string(w.Layout), w.Key, string(w.Scratch), w.StartLock, w.Durability, w.IdleTimeout, w.Debug, w.HostPID, w.Version, w.Protocols}, nil
}
