// Asks a ClickHouse endpoint through clickhouse-go over HTTP: one JSON request a line on standard input, one JSON
// answer a line on standard output, in whatever order they are ready. Ends with its input.
package main

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
)

type request struct {
	ID            int               `json:"id"`
	Op            string            `json:"op"` // ping, query, exec, insert
	SQL           string            `json:"sql"`
	Settings      map[string]any    `json:"settings"`
	Parameters    map[string]string `json:"parameters"`
	TimeoutMs     int               `json:"timeout_ms"`      // the context's deadline; 0: none
	CancelAfterMs int               `json:"cancel_after_ms"` // the caller goes away; 0: never
	Rows          int               `json:"rows"`            // of an insert: (number, 'row number')
}

type failure struct {
	Message  string `json:"message"`
	Code     int32  `json:"code"` // 0: not the server's word
	Name     string `json:"name"`
	Deadline bool   `json:"deadline"`
	Canceled bool   `json:"canceled"`
}

type answer struct {
	ID      int      `json:"id"`
	Names   []string `json:"names"`
	Types   []string `json:"types"`    // ClickHouse's
	GoTypes []string `json:"go_types"` // what the client scans into
	Rows    [][]any  `json:"rows"`
	Error   *failure `json:"error"`
}

type target struct {
	Address     string `json:"address"`
	User        string `json:"user"`
	Password    string `json:"password"`
	Database    string `json:"database"`
	Compression string `json:"compression"` // none, gzip, deflate
}

var methods = map[string]clickhouse.CompressionMethod{
	"none": clickhouse.CompressionNone, "gzip": clickhouse.CompressionGZIP, "deflate": clickhouse.CompressionDeflate,
}

func options(to target) *clickhouse.Options {
	return &clickhouse.Options{
		Protocol:     clickhouse.HTTP,
		Addr:         []string{to.Address},
		Auth:         clickhouse.Auth{Database: to.Database, Username: to.User, Password: to.Password},
		Compression:  &clickhouse.Compression{Method: methods[to.Compression]},
		DialTimeout:  10 * time.Second,
		ReadTimeout:  60 * time.Second,
		MaxOpenConns: 80,
	}
}

func main() {
	input := bufio.NewScanner(os.Stdin)
	input.Buffer(make([]byte, 1<<20), 16<<20)
	var to target
	if !input.Scan() || json.Unmarshal(input.Bytes(), &to) != nil {
		fmt.Fprintln(os.Stderr, "the first line names the endpoint")
		os.Exit(2)
	}
	db := clickhouse.OpenDB(options(to))
	db.SetMaxOpenConns(80)
	defer db.Close()
	output := json.NewEncoder(os.Stdout)
	var one sync.Mutex
	var all sync.WaitGroup
	for input.Scan() {
		var asked request
		if err := json.Unmarshal(input.Bytes(), &asked); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		all.Add(1)
		go func() {
			defer all.Done()
			said := serve(db, to, asked)
			one.Lock()
			defer one.Unlock()
			if err := output.Encode(said); err != nil {
				_ = output.Encode(answer{ID: asked.ID, Error: &failure{Message: err.Error()}})
			}
		}()
	}
	all.Wait()
}

func serve(db *sql.DB, to target, asked request) answer {
	ctx := context.Background()
	var stop context.CancelFunc
	if asked.TimeoutMs > 0 {
		ctx, stop = context.WithTimeout(ctx, time.Duration(asked.TimeoutMs)*time.Millisecond)
		defer stop()
	}
	ctx, stop = context.WithCancel(ctx)
	defer stop()
	if asked.CancelAfterMs > 0 {
		time.AfterFunc(time.Duration(asked.CancelAfterMs)*time.Millisecond, stop)
	}
	if asked.Settings != nil {
		ctx = clickhouse.Context(ctx, clickhouse.WithSettings(asked.Settings))
	}
	if asked.Parameters != nil {
		ctx = clickhouse.Context(ctx, clickhouse.WithParameters(asked.Parameters))
	}
	said := answer{ID: asked.ID}
	var err error
	switch asked.Op {
	case "ping":
		err = db.PingContext(ctx)
	case "exec":
		_, err = db.ExecContext(ctx, asked.SQL)
	case "insert":
		err = insert(ctx, to, asked)
	case "query":
		err = query(ctx, db, asked.SQL, &said)
	default:
		err = fmt.Errorf("op: found %q", asked.Op)
	}
	said.Error = explained(err)
	return said
}

func query(ctx context.Context, db *sql.DB, statement string, said *answer) error {
	rows, err := db.QueryContext(ctx, statement)
	if err != nil {
		return err
	}
	defer rows.Close()
	columns, err := rows.ColumnTypes()
	if err != nil {
		return err
	}
	for _, column := range columns {
		said.Names = append(said.Names, column.Name())
		said.Types = append(said.Types, column.DatabaseTypeName())
		said.GoTypes = append(said.GoTypes, column.ScanType().String())
	}
	said.Rows = [][]any{}
	for rows.Next() {
		into := make([]any, len(columns))
		for i, column := range columns {
			into[i] = reflect.New(column.ScanType()).Interface()
		}
		if err := rows.Scan(into...); err != nil {
			return err
		}
		row := make([]any, len(columns))
		for i, value := range into {
			row[i] = plain(reflect.ValueOf(value).Elem())
		}
		said.Rows = append(said.Rows, row)
	}
	return rows.Err()
}

func insert(ctx context.Context, to target, asked request) error {
	conn, err := clickhouse.Open(options(to))
	if err != nil {
		return err
	}
	defer conn.Close()
	batch, err := conn.PrepareBatch(ctx, asked.SQL)
	if err != nil {
		return err
	}
	for n := range asked.Rows {
		if err := batch.Append(uint64(n), fmt.Sprintf("row %d", n)); err != nil {
			return err
		}
	}
	return batch.Send()
}

func explained(err error) *failure {
	if err == nil {
		return nil
	}
	out := &failure{
		Message:  err.Error(),
		Deadline: errors.Is(err, context.DeadlineExceeded),
		Canceled: errors.Is(err, context.Canceled),
	}
	var exception *clickhouse.Exception
	if errors.As(err, &exception) {
		out.Code, out.Name = exception.Code, exception.Name
	}
	return out
}

// A value as JSON can hold it: times as text, other values with a text of their own by it, no NaN.
func plain(value reflect.Value) any {
	if !value.IsValid() {
		return nil
	}
	switch known := value.Interface().(type) {
	case time.Time:
		return known.UTC().Format(time.RFC3339Nano)
	case fmt.Stringer:
		if value.Kind() != reflect.Pointer || !value.IsNil() {
			return known.String()
		}
	}
	switch value.Kind() {
	case reflect.Pointer, reflect.Interface:
		if value.IsNil() {
			return nil
		}
		return plain(value.Elem())
	case reflect.Float32, reflect.Float64:
		if number := value.Float(); math.IsNaN(number) || math.IsInf(number, 0) {
			return nil
		}
	case reflect.Slice, reflect.Array:
		out := make([]any, value.Len())
		for i := range out {
			out[i] = plain(value.Index(i))
		}
		return out
	case reflect.Map:
		out := map[string]any{}
		for _, key := range value.MapKeys() {
			out[fmt.Sprint(plain(key))] = plain(value.MapIndex(key))
		}
		return out
	}
	return value.Interface()
}
